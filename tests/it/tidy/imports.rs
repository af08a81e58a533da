//! Which file of `src` uses which, read from the paths in its code.
//!
//! Paths in macros count, comments and texts do not. A file that only declares modules and re-exports
//! their items is transparent: who uses it uses the files behind it.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// One file uses another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Import {
    pub(super) from: String,
    pub(super) to: String,
    /// In code that only tests compile.
    pub(super) is_in_tests: bool,
}

/// The imports between the files of `src`; `main.rs` is a crate of its own.
pub(super) fn imports_of_src() -> BTreeSet<Import> {
    let mut files = Vec::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        "",
        &mut files,
    );
    files.retain(|(path, _)| path != "main.rs");
    imports(&files)
}

/// The imports between `files`, each with its path below `src` and its text.
pub(super) fn imports(files: &[(String, String)]) -> BTreeSet<Import> {
    let mut tree = Tree::default();
    for (path, text) in files {
        let tokens: Vec<TokenTree> = text
            .parse::<TokenStream>()
            .expect(path)
            .into_iter()
            .collect();
        let module = module_path(path);
        let file = File {
            path: path.clone(),
            is_transparent: is_transparent(&tokens),
        };
        tree.files.insert(module.clone(), file);
        tree.read(&tokens, &module, false);
    }
    tree.imports()
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("the source tree can be read") {
        let entry = entry.expect("the source tree can be read");
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{path}/"), files);
        } else if path.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).expect("the source tree can be read");
            files.push((path, text));
        }
    }
}

/// `a/b.rs` and `a/b/mod.rs` are the module `a::b`, and `lib.rs` is the root.
fn module_path(file: &str) -> Names {
    let mut names: Names = file
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    names.pop_if(|last| last == "mod" || last == "lib");
    names
}

type Names = Vec<String>;

struct File {
    path: String,
    is_transparent: bool,
}

/// A path in the code of a module.
struct Mention {
    module: Names,
    path: Names,
    is_in_tests: bool,
}

#[derive(Default)]
struct Tree {
    files: HashMap<Names, File>,
    /// Modules that only tests compile.
    test_modules: Vec<Names>,
    mentions: Vec<Mention>,
    /// The paths that modules import, by module and name.
    imported: HashMap<(Names, String), Names>,
}

impl Tree {
    fn read(&mut self, tokens: &[TokenTree], module: &Names, is_in_tests: bool) {
        let mut is_test_item = false;
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let rest = &tokens[at + 1..];
            let is_in_tests = is_in_tests || is_test_item;
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    if let Some(TokenTree::Group(attribute)) = rest.first() {
                        let text = attribute.stream().to_string().replace(' ', "");
                        is_test_item |= text == "cfg(test)";
                        at += 1;
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => is_test_item = false,
                TokenTree::Group(group) => {
                    self.read(&trees(group), module, is_in_tests);
                    is_test_item &= group.delimiter() != Delimiter::Brace;
                }
                TokenTree::Ident(word) if word == "mod" => {
                    let inner = [module.as_slice(), &[rest[0].to_string()]].concat();
                    match rest.get(1) {
                        Some(TokenTree::Group(group)) => {
                            self.read(&trees(group), &inner, is_in_tests);
                        }
                        _ if is_in_tests => self.test_modules.push(inner),
                        _ => {}
                    }
                    is_test_item = false;
                    at += 2;
                }
                TokenTree::Ident(word) if word == "use" && !is_punct(rest.first(), '<') => {
                    let end = use_length(rest);
                    self.read_use(&rest[..end], &[], module, is_in_tests);
                    at += end;
                }
                TokenTree::Ident(_) => {
                    let path = path_at(&tokens[at..]);
                    let is_start = at < 2 || !is_separator(&tokens[at - 2..]);
                    at += 3 * (path.len() - 1);
                    if is_start && path.len() > 1 {
                        self.mention(module, path, is_in_tests);
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Reads one tree of a `use`, of which `prefix` is known.
    fn read_use(&mut self, tree: &[TokenTree], prefix: &[String], module: &Names, in_tests: bool) {
        let mut path = prefix.to_vec();
        let mut name = None;
        for (at, token) in tree.iter().enumerate() {
            match token {
                TokenTree::Group(group) => {
                    for tree in trees(group).split(|token| is_punct(Some(token), ',')) {
                        self.read_use(tree, &path, module, in_tests);
                    }
                    return;
                }
                TokenTree::Ident(word) if word == "as" => {
                    name = tree.get(at + 1).map(ToString::to_string);
                    break;
                }
                TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
                TokenTree::Ident(word) => path.push(word.to_string()),
                _ => {}
            }
        }
        if let Some(name) = name.or_else(|| path.last().cloned()) {
            self.imported.insert((module.clone(), name), path.clone());
            self.mention(module, path, in_tests);
        }
    }

    fn mention(&mut self, module: &Names, path: Names, is_in_tests: bool) {
        self.mentions.push(Mention {
            module: module.clone(),
            path,
            is_in_tests,
        });
    }

    fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for mention in &self.mentions {
            let (from, _) = self.file_of(&mention.module);
            let is_around = |module: &Names| mention.module.starts_with(module);
            let is_in_tests = mention.is_in_tests || self.test_modules.iter().any(is_around);
            if let Some(to) = self.target(mention)
                && to.path != from.path
            {
                imports.insert(Import {
                    from: from.path.clone(),
                    to: to.path.clone(),
                    is_in_tests,
                });
            }
        }
        imports
    }

    /// The file behind a path; none for what other crates hold.
    fn target(&self, mention: &Mention) -> Option<&File> {
        let mut path = self.absolute(&mention.module, &mention.path)?;
        loop {
            let (file, length) = self.file_of(&path);
            if !file.is_transparent {
                return Some(file);
            }
            let (module, rest) = path.split_at(length);
            let (name, rest) = rest.split_first()?;
            let exported = self.imported.get(&(module.to_vec(), name.clone()))?;
            path = [self.absolute(module, exported)?.as_slice(), rest].concat();
        }
    }

    /// `path`, as `module` writes it, from the root of the crate.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Names> {
        let (first, rest) = path.split_first()?;
        let mut base = module.to_vec();
        match first.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                base.pop();
            }
            name => {
                base.push(name.to_owned());
                if !self.files.contains_key(&base) {
                    let imported = self.imported.get(&(module.to_vec(), name.to_owned()))?;
                    if imported.first() == Some(first) {
                        return None;
                    }
                    base = self.absolute(module, imported)?;
                }
            }
        }
        if rest.first().is_some_and(|name| name == "super") {
            return self.absolute(&base, rest);
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// The file that `path` leads to or into, and how many of its names lead to it.
    fn file_of(&self, path: &[String]) -> (&File, usize) {
        (0..=path.len())
            .rev()
            .find_map(|length| Some((self.files.get(&path[..length])?, length)))
            .expect("the root of the crate is a file")
    }
}

/// Whether there is nothing but declarations of modules and re-exports.
fn is_transparent(tokens: &[TokenTree]) -> bool {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let rest = &tokens[at + 1..];
        at += match (token.to_string().as_str(), rest) {
            ("#", [TokenTree::Group(_), ..]) => 2,
            ("#", _) => 3,
            ("pub", [TokenTree::Group(_), ..]) => 2,
            ("pub", _) => 1,
            ("use", _) => use_length(rest) + 2,
            ("mod", [_, TokenTree::Group(group), ..]) if !is_transparent(&trees(group)) => {
                return false;
            }
            ("mod", _) => 3,
            _ => return false,
        };
    }
    true
}

fn trees(group: &Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}

/// How many tokens stand before the semicolon.
fn use_length(tokens: &[TokenTree]) -> usize {
    let end = tokens.iter().position(|token| is_punct(Some(token), ';'));
    end.expect("a use ends with a semicolon")
}

/// The names of the path that `tokens` begin with.
fn path_at(tokens: &[TokenTree]) -> Names {
    let mut names = vec![tokens[0].to_string()];
    let mut rest = &tokens[1..];
    while let [_, _, TokenTree::Ident(name), ..] = rest
        && is_separator(rest)
    {
        names.push(name.to_string());
        rest = &rest[3..];
    }
    names
}

fn is_separator(tokens: &[TokenTree]) -> bool {
    is_punct(tokens.first(), ':') && is_punct(tokens.get(1), ':')
}

fn is_punct(token: Option<&TokenTree>, what: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == what)
}

#[test]
fn paths_lead_to_the_files_that_hold_them() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        (
            "a.rs",
            "mod inner { use super::super::c; fn f() { c::deep::g::<u8>() } }",
        ),
        (
            "b/mod.rs",
            "mod d; #[cfg(test)] mod tests; pub(crate) use self::d::{D as E, other};",
        ),
        (
            "b/d.rs",
            "// crate::a\nfn f() { \"crate::a\"; print!(\"{}\", crate::c::X) }",
        ),
        ("b/tests.rs", "use super::E;"),
        (
            "c.rs",
            "use std::fmt; #[cfg(test)] fn f() { crate::a::f() } fn g(e: crate::b::E) {}",
        ),
    ];
    let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
    let found = imports(&files);
    let found = found
        .iter()
        .map(|import| (&*import.from, &*import.to, import.is_in_tests));
    assert_eq!(
        found.collect::<Vec<_>>(),
        [
            ("a.rs", "c.rs", false),
            ("b/d.rs", "c.rs", false),
            ("b/mod.rs", "b/d.rs", false),
            ("b/tests.rs", "b/d.rs", true),
            ("c.rs", "a.rs", true),
            ("c.rs", "b/d.rs", false),
        ]
    );
}
