//! What a JSON patch does, as RFC 6902 and RFC 6901 write it down: what ours is compared with.

use serde_json::Value;

/// Does all operations in their order; none when one of them cannot be done.
pub fn operate(target: &mut Value, patch: &Value) -> Option<()> {
    for operation in patch.as_array()? {
        let path = |field: &str| tokens(operation.get(field)?.as_str()?);
        let (to, value) = (path("path")?, operation.get("value"));
        match operation.get("op")?.as_str()? {
            "add" => add(target, &to, value?.clone())?,
            "remove" => drop(remove(target, &to)?),
            "replace" => *at(target, &to)? = value?.clone(),
            "copy" => {
                let copied = at(target, &path("from")?)?.clone();
                add(target, &to, copied)?;
            }
            "move" => {
                let from = path("from")?;
                if to.len() > from.len() && to.starts_with(&from) {
                    return None; // into itself
                }
                let moved = remove(target, &from)?;
                add(target, &to, moved)?;
            }
            "test" if at(target, &to)? == value? => {}
            _ => return None,
        }
    }
    Some(())
}

fn tokens(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let read = |token: &str| {
        let rest = token.replace("~0", "").replace("~1", "");
        (!rest.contains('~')).then(|| token.replace("~1", "/").replace("~0", "~"))
    };
    pointer.strip_prefix('/')?.split('/').map(read).collect()
}

fn index(token: &str) -> Option<usize> {
    let plain = token == "0" || (!token.starts_with('0') && token.bytes().all(|digit| digit.is_ascii_digit()));
    plain.then(|| token.parse().ok())?
}

fn at<'a>(value: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, token| match value {
        Value::Object(fields) => fields.get_mut(token),
        Value::Array(items) => items.get_mut(index(token)?),
        _ => None,
    })
}

fn add(target: &mut Value, path: &[String], value: Value) -> Option<()> {
    let Some((last, parent)) = path.split_last() else {
        *target = value;
        return Some(());
    };
    match at(target, parent)? {
        Value::Object(fields) => drop(fields.insert(last.clone(), value)),
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => {
            let place = index(last).filter(|place| *place <= items.len())?;
            items.insert(place, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(target: &mut Value, path: &[String]) -> Option<Value> {
    let (last, parent) = path.split_last()?;
    match at(target, parent)? {
        Value::Object(fields) => fields.remove(last),
        Value::Array(items) => index(last).filter(|place| *place < items.len()).map(|place| items.remove(place)),
        _ => None,
    }
}
