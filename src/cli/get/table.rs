//! Tables as kubectl prints them, from the Tables that a server makes; and the name and the age of each object from one that
//! makes none.

use super::{Kind, Output, write};
use crate::{
    cli::output::{self, Columns, clean_line},
    clock,
    http::table::human,
};
use serde_json::Value;

/// Prints lists, and then what becomes of them, in one form.
#[derive(Debug)]
pub(super) struct Printer {
    output: Output,
    kind: Kind,
    /// Whether rows say their namespace.
    namespaces: bool,
    columns: Columns,
    headed: bool,
    /// The columns of the server's tables that are shown, by their places; learnt from the first.
    shown: Vec<usize>,
}

impl Printer {
    pub(super) fn new(output: Output, kind: Kind, namespaces: bool) -> Self {
        Self { output, kind, namespaces, columns: Columns::default(), headed: false, shown: Vec::new() }
    }

    /// Prints a list or a Table; answers with how many objects are in it.
    pub(super) fn print_list(&mut self, list: &Value) -> anyhow::Result<usize> {
        let is_table = list["kind"] == "Table";
        let objects = list[if is_table { "rows" } else { "items" }].as_array().map(Vec::as_slice).unwrap_or_default();
        match self.output {
            Output::Json | Output::Yaml => output::print(&write(self.output, list, self.kind)?)?,
            Output::Name => {
                for object in objects {
                    output::print(&write(self.output, object, self.kind)?)?;
                }
            }
            Output::Table | Output::Wide => {
                let rows = if is_table { self.table(list) } else { self.plain(objects_of(list)) };
                if !objects.is_empty() || list.get("items").is_none() && !is_table {
                    output::print(&self.columns.lines(&rows))?;
                }
            }
        }
        Ok(objects.len())
    }

    /// Prints one object, or a Table with its one row.
    pub(super) fn print_object(&mut self, object: &Value) -> anyhow::Result<()> {
        if self.output.is_table() {
            self.print_list(object)?;
        } else {
            output::print(&write(self.output, object, self.kind)?)?;
        }
        Ok(())
    }

    fn table(&mut self, table: &Value) -> Vec<Vec<String>> {
        let mut lines = Vec::new();
        let rows = table["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !self.headed && !rows.is_empty() {
            self.headed = true;
            let definitions = table["columnDefinitions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let wide = self.output == Output::Wide;
            let shown =
                definitions.iter().enumerate().filter(|(_, column)| wide || column["priority"].as_i64().unwrap_or(0) == 0);
            let (places, names): (Vec<usize>, Vec<String>) =
                shown.map(|(at, column)| (at, output::text(column, "/name").to_uppercase())).unzip();
            self.shown = places;
            lines.push(self.line("NAMESPACE", names));
        }
        for row in rows {
            let cell = |at: &usize| cell(&row["cells"][*at]);
            lines.push(self.line(output::text(row, "/object/metadata/namespace"), self.shown.iter().map(cell).collect()));
        }
        lines
    }

    fn plain<'a>(&mut self, objects: impl Iterator<Item = &'a Value>) -> Vec<Vec<String>> {
        let mut lines = Vec::new();
        let now = clock::system().now();
        for object in objects {
            if !self.headed {
                self.headed = true;
                lines.push(self.line("NAMESPACE", vec!["NAME".into(), "AGE".into()]));
            }
            let created = output::text(object, "/metadata/creationTimestamp").parse().ok();
            let age = created.map_or_else(|| "<unknown>".to_owned(), |created| human(created, now));
            let name = clean_line(output::text(object, "/metadata/name"));
            lines.push(self.line(output::text(object, "/metadata/namespace"), vec![name, age]));
        }
        lines
    }

    fn line(&self, namespace: &str, cells: Vec<String>) -> Vec<String> {
        let namespace = self.namespaces.then(|| clean_line(namespace));
        namespace.into_iter().chain(cells).collect()
    }
}

/// The objects of a list, or the object itself.
fn objects_of(list: &Value) -> impl Iterator<Item = &Value> {
    let (items, one) = match list["items"].as_array() {
        Some(items) => (items.as_slice(), None),
        None => (Default::default(), Some(list)),
    };
    items.iter().chain(one)
}

/// A cell as kubectl shows it.
fn cell(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => clean_line(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => cell.to_string(),
    }
}
