//! The site: mdBook shows what `docs/SUMMARY.md` names, and nothing else.

use super::page::{Page, ROOT};
use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

/// A link without its `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(plain.pop(), "{}: leaves the repository", path.display()),
            Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => plain.push(part),
        }
    }
    plain
}

/// What is wrong with a page's links.
fn dead(page: &Page, site: bool) -> Vec<String> {
    let mut found = Vec::new();
    for (line, link) in page.links() {
        if link.starts_with("https://") || link.starts_with("http://") {
            continue;
        }
        let (file, anchor) = link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
        let target = if file.is_empty() { page.path.clone() } else { plain(&page.path.parent().unwrap().join(file)) };
        let complaint = if !Path::new(ROOT).join(&target).exists() {
            Some("is not there")
        } else if site && !target.starts_with("docs") {
            Some("is not part of the site: say the path as code, or include it in a page")
        } else if anchor.is_some_and(|anchor| !Page::read(&target).anchors().iter().any(|known| known == anchor)) {
            Some("has no such heading")
        } else {
            None
        };
        found.extend(complaint.map(|complaint| format!("{}:{line}: {link} {complaint}", page.path.display())));
    }
    found
}

#[test]
fn every_page_is_in_the_summary_once() {
    let pages = Page::all_in("docs");
    let summary = pages.iter().find(|page| page.name() == "SUMMARY.md").expect("docs/SUMMARY.md");
    let listed: Vec<String> = summary.links().into_iter().map(|(_, link)| link).collect();
    let once: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    assert_eq!(listed.len(), once.len(), "a page stands there twice: {listed:?}");
    let there: BTreeSet<&str> = pages.iter().map(Page::name).filter(|name| *name != "SUMMARY.md").collect();
    let missing: Vec<_> = there.difference(&once).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md does not list {missing:?}");
    let strange: Vec<_> = once.difference(&there).collect();
    assert!(strange.is_empty(), "docs/SUMMARY.md lists {strange:?}, which are not there");
}

#[test]
fn no_link_is_dead() {
    let site = Page::all_in("docs").into_iter().flat_map(|page| dead(&page, true));
    let beside = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md"];
    let beside = beside.into_iter().map(|path| Page::read(Path::new(path))).flat_map(|page| dead(&page, false));
    let all: Vec<String> = site.chain(beside).collect();
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn a_page_begins_with_its_title() {
    for page in Page::all_in("docs") {
        let first = page.text.lines().next().unwrap_or_default();
        assert!(first.starts_with("# "), "{}: {first:?}", page.path.display());
    }
}
