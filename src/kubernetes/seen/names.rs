//! A map by kind, namespace and name that keeps the first two once, not with each object, and the name in one piece: of a cluster with
//! a hundred thousand objects it is most of what this process has to keep.

use crate::{
    kubernetes::kind::{Id, Kind},
    model::object::Key,
};
use std::collections::HashMap;

/// The objects of one kind, by namespace and name.
type Places<T> = HashMap<String, HashMap<Box<str>, T>>;

/// The map.
#[derive(Debug)]
pub(super) struct Names<T>([Places<T>; Kind::ALL.len()]);

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| HashMap::new()))
    }
}

impl<T> Names<T> {
    pub(super) fn get(&self, id: &Id) -> Option<&T> {
        self.0[id.kind as usize].get(&id.key.namespace)?.get(id.key.name.as_str())
    }

    pub(super) fn get_mut(&mut self, id: &Id) -> Option<&mut T> {
        self.0[id.kind as usize].get_mut(&id.key.namespace)?.get_mut(id.key.name.as_str())
    }

    pub(super) fn insert(&mut self, id: &Id, value: T) {
        let places = &mut self.0[id.kind as usize];
        let name = Box::from(id.key.name.as_str());
        if let Some(names) = places.get_mut(&id.key.namespace) {
            names.insert(name, value);
        } else {
            places.insert(id.key.namespace.clone(), HashMap::from([(name, value)]));
        }
    }

    pub(super) fn remove(&mut self, id: &Id) -> Option<T> {
        let places = &mut self.0[id.kind as usize];
        let names = places.get_mut(&id.key.namespace)?;
        let removed = names.remove(id.key.name.as_str());
        if names.is_empty() {
            places.remove(&id.key.namespace);
        }
        removed
    }

    /// Those of a kind, in a namespace or in all.
    pub(super) fn ids(&self, kind: Kind, namespace: Option<&str>) -> impl Iterator<Item = Id> {
        let places = self.0[kind as usize].iter().filter(move |(place, _)| namespace.is_none_or(|namespace| namespace == *place));
        places.flat_map(move |(place, names)| names.keys().map(move |name| Id { kind, key: Key::new(place, &**name) }))
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().flat_map(HashMap::values).map(HashMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_under_its_own_name_and_nothing_is_left_of_what_was_removed() {
        let id = |kind, namespace: &str, name: &str| Id { kind, key: Key::new(namespace, name) };
        let all = [id(Kind::Chat, "n", "a"), id(Kind::Agent, "n", "a"), id(Kind::Chat, "m", "a"), id(Kind::Chat, "n", "b")];
        let mut names = Names::default();
        for (number, id) in all.iter().enumerate() {
            names.insert(id, number);
        }
        *names.get_mut(&all[3]).unwrap() += 10;
        assert_eq!(all.iter().map(|id| names.get(id).copied()).collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(13)]);
        assert_eq!((names.len(), names.ids(Kind::Chat, None).count()), (4, 3));
        let mut some: Vec<Id> = names.ids(Kind::Chat, Some("n")).collect();
        some.sort();
        assert_eq!(some, [all[0].clone(), all[3].clone()]);
        assert_eq!((names.remove(&all[2]), names.remove(&all[2]), names.get(&all[2])), (Some(2), None, None));
        assert_eq!((names.len(), names.0[Kind::Chat as usize].len()), (3, 1));
    }
}
