//! The files of the workspace.

use std::fs;
use std::path::Path;

use crate::source::File;

/// What holds no file of ours; `.git` is a file in a linked work tree.
const SKIPPED: [&str; 6] = [".git", "target", "out", "node_modules", ".venv", "__pycache__"];

/// Files that tools write, with names we do not choose.
const WRITTEN_BY_TOOLS: [&str; 2] = ["Cargo.lock", "go.sum"];

/// Everything in the workspace that is text.
pub(crate) struct Tree(Vec<File>);

impl Tree {
    /// Reads the workspace that this crate is in.
    pub(crate) fn read() -> Self {
        let root = root();
        let mut files = Vec::new();
        walk(root, root, &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self(files)
    }

    /// Writes a file of the workspace.
    pub(crate) fn write(path: &str, text: &str) {
        fs::write(root().join(path), text).expect("a file of the workspace can be written");
    }

    /// A tree of these files.
    pub(crate) fn of(files: Vec<File>) -> Self {
        Self(files)
    }

    /// All files.
    pub(crate) fn all(&self) -> impl Iterator<Item = &File> {
        self.0.iter()
    }

    /// The Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.0.iter().filter(|file| file.path.ends_with(".rs"))
    }

    /// The file with this path.
    pub(crate) fn get(&self, path: &str) -> Option<&File> {
        self.0.iter().find(|file| file.path == path)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is a folder of the workspace")
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace can be read") {
        let entry = entry.expect("an entry of the workspace can be read");
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let kind = entry.file_type().expect("an entry has a type");
        if SKIPPED.contains(&&*name) {
            continue;
        }
        if kind.is_dir() {
            walk(root, &path, files);
        } else if kind.is_file() && !WRITTEN_BY_TOOLS.contains(&&*name) {
            let relative = path.strip_prefix(root).expect("found below the root").to_string_lossy().into_owned();
            // What is not text has nothing to say here.
            files.extend(fs::read_to_string(&path).ok().map(|text| File::new(&relative, &text)));
        }
    }
}
