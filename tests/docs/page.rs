//! A page as its readers see it: its headings, links and fenced blocks.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The repository.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// Where it begins, from 1.
    pub line: usize,
    /// What stands behind the fence.
    pub info: String,
    /// What is between the fences.
    pub text: String,
}

/// The number of a fence's line, and what stands behind it.
type Fence<'a> = (usize, &'a str);

/// A page.
#[derive(Debug)]
pub struct Page {
    /// Its path in the repository.
    pub path: PathBuf,
    /// Its text, with what it includes.
    pub text: String,
}

impl Page {
    pub fn read(path: &Path) -> Self {
        let whole = Path::new(ROOT).join(path);
        let text = fs::read_to_string(&whole).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // As mdBook does it: `{{#include FILE}}`, alone on a line, FILE from the page's folder.
        let lines = text.lines().map(|line| match line.strip_prefix("{{#include ").and_then(|rest| rest.strip_suffix("}}")) {
            Some(file) => {
                fs::read_to_string(whole.parent().unwrap().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
            }
            None => line.to_owned(),
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        Self { path: path.to_owned(), text }
    }

    /// Every page of a folder, by name.
    pub fn all_in(folder: &str) -> Vec<Self> {
        let entries = fs::read_dir(Path::new(ROOT).join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.filter(|name| Path::new(name).extension().is_some_and(|end| end == "md")).collect();
        names.sort();
        names.iter().map(|name| Self::read(&Path::new(folder).join(name))).collect()
    }

    /// Its name without the folder.
    pub fn name(&self) -> &str {
        self.path.file_name().unwrap().to_str().unwrap()
    }

    /// Its lines, each with its number and the fence that it is in, but for the fences.
    fn lines(&self) -> Vec<(usize, Option<Fence<'_>>, &str)> {
        let (mut inside, mut found) = (None, Vec::new());
        for (at, line) in self.text.lines().enumerate() {
            match (line.trim_start().strip_prefix("```"), inside) {
                (Some(info), None) => inside = Some((at + 1, info.trim())),
                (Some(""), Some(_)) => inside = None,
                _ => found.push((at + 1, inside, line)),
            }
        }
        assert_eq!(inside, None, "{}: a block without an end", self.path.display());
        found
    }

    /// Its fenced blocks, in order.
    pub fn blocks(&self) -> Vec<Block> {
        let mut found: BTreeMap<usize, Block> = BTreeMap::new();
        for (_, fence, line) in self.lines() {
            let Some((begin, info)) = fence else { continue };
            let block = found.entry(begin).or_insert_with(|| Block { line: begin, info: info.to_owned(), text: String::new() });
            block.text.push_str(line);
            block.text.push('\n');
        }
        found.into_values().collect()
    }

    /// Where its headings can be linked to, as mdBook and GitHub name them.
    pub fn anchors(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for (_, fence, line) in self.lines() {
            let title = line.trim_start_matches('#');
            if fence.is_some() || !line.starts_with('#') || !title.starts_with(' ') {
                continue;
            }
            let kept = title.trim().chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
            let name: String = kept.map(|letter| if letter == ' ' { '-' } else { letter }).flat_map(char::to_lowercase).collect();
            let same = found.iter().filter(|known| **known == name).count();
            found.push(if same == 0 { name } else { format!("{name}-{same}") });
        }
        found
    }

    /// What its prose links to, each with its line. Code is not prose.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, fence, line) in self.lines() {
            if fence.is_some() {
                continue;
            }
            // Every second piece is between backticks; a link around code stays one.
            let prose: String = line.split('`').enumerate().map(|(nth, piece)| if nth % 2 == 0 { piece } else { "" }).collect();
            for (begin, _) in prose.match_indices("](") {
                let rest = &prose[begin + 2..];
                let end = rest.find(')').unwrap_or_else(|| panic!("{}:{at}: a link without an end", self.path.display()));
                found.push((at, rest[..end].to_owned()));
            }
        }
        found
    }
}
