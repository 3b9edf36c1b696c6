//! What the documents name is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All files below a folder whose name ends so.
fn files(folder: &Path, end: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, end, found);
        } else if path.to_str().unwrap().ends_with(end) {
            found.push(path);
        }
    }
}

fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&root().join("docs"), ".md", &mut found);
    found.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    found
}

/// What stands between `open` and the next `close`, all of them.
fn between<'a>(text: &'a str, open: &'a str, close: char) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split(close).next())
}

#[test]
fn every_file_that_a_document_links_to_is_there() {
    let mut links = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in between(&text, "](", ')').filter(|link| !link.starts_with("http")) {
            let file = link.split('#').next().unwrap();
            let path = document.parent().unwrap().join(file);
            assert!(path.exists(), "{}: {link}", document.display());
            links += 1;
        }
    }
    assert!(links > 50, "{links}");
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let (mut sources, mut code) = (Vec::new(), String::new());
    files(&root().join("crates"), ".rs", &mut sources);
    sources.iter().for_each(|source| code += &fs::read_to_string(source).unwrap());
    let mut names = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        // Names of tests are sentences; of other names only those of metrics have as many words.
        let sentence = |name: &&str| {
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let long = name.chars().all(word) && name.matches('_').count() > 3;
            long && !name.starts_with("bkss_")
        };
        for name in text.split('`').skip(1).step_by(2).filter(sentence) {
            let is_there = code.contains(&format!("fn {name}("));
            assert!(is_there, "{}: {name}", document.display());
            names += 1;
        }
    }
    assert!(names > 20, "{names}");
}
