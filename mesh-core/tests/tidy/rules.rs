//! The rules, each a function from a file to its faults, with the tables that say what is allowed where.

use std::fmt;

use crate::source::{File, Function, words};
use crate::tree::Tree;

/// Lines of code that a file may have.
const LONGEST_FILE: usize = 600;
/// Lines of code that any function may have.
const LONGEST_FUNCTION: usize = 100;
/// Over so many a function is long; 1.5 % of all may be.
const LONG_FUNCTION: usize = 50;

/// A place in the tree that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    path: String,
    line: usize,
    what: String,
}

impl Fault {
    pub(crate) fn new(file: &File, line: usize, what: impl Into<String>) -> Self {
        Self { path: file.path.clone(), line, what: what.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}:{}: {}", self.path, self.line, self.what)
    }
}

/// Names that only some places may say. Tests may say them too, unless `tests_too`.
struct Names {
    /// Whole words, or pieces of code if they hold `::`.
    names: &'static [&'static str],
    /// Where the rule holds: beginnings of paths.
    within: &'static [&'static str],
    /// Where it does not.
    except: &'static [&'static str],
    tests_too: bool,
}

const EVERYWHERE: &[&str] = &[""];
const LIBRARIES: &[&str] = &["mesh-core/src/", "mesh-tower/src/", "mesh-grpc/src/"];

const NAMES: &[Names] = &[
    // What decides does not know who asks: the core is usable without Tower.
    Names {
        names: &[
            "tower",
            "tower_service",
            "tower_layer",
            "hyper",
            "hyper_util",
            "rustls",
            "tokio_rustls",
            "aws_lc_rs",
            "tonic",
            "opentelemetry",
            "pin_project",
            "mesh_tower",
            "mesh_grpc",
        ],
        within: &["mesh-core/"],
        except: &["mesh-core/tests/tidy/"],
        tests_too: true,
    },
    Names { names: &["mesh_grpc"], within: &["mesh-tower/src/"], except: &[], tests_too: true },
    // One module each, so that a library can be replaced by rewriting one folder.
    Names {
        names: &["rustls", "tokio_rustls", "rustls_native_certs", "aws_lc_rs"],
        within: EVERYWHERE,
        except: &["mesh-tower/src/secure"],
        tests_too: false,
    },
    // The benches install an SDK, as applications do.
    Names {
        names: &["opentelemetry"],
        within: EVERYWHERE,
        except: &["mesh-tower/src/observe", "benches/"],
        tests_too: false,
    },
    Names {
        names: &["envoy_types"],
        within: EVERYWHERE,
        // The load reporting stream and questions to authorization servers are protocols beside ADS.
        except: &[
            "mesh-core/src/authz/",
            "mesh-core/src/decode/",
            "mesh-core/src/ads/",
            "mesh-core/src/lrs/",
            "mesh-core/src/source/",
            "mesh-grpc/src/admin/",
            "mesh-grpc/src/control",
        ],
        tests_too: false,
    },
    // Time is an argument: only what moves bytes may look at a clock.
    Names {
        names: &["Instant::now", "SystemTime::now"],
        within: &["mesh-core/src/"],
        except: &[
            "mesh-core/src/ads/driver.rs",
            "mesh-core/src/lrs/driver.rs",
            "mesh-core/src/dns/feed.rs",
            // When to renew and when to try again: it moves bytes.
            "mesh-core/src/certificates/",
            "mesh-core/src/config/",
            "mesh-core/src/source/file",
            // A file's age is told by the clock on the wall.
            "mesh-core/src/source/last_good",
            "mesh-core/src/identity/file_watcher.rs",
        ],
        tests_too: false,
    },
    // Whoever wants to know what the environment changes has few places to read.
    Names {
        names: &["env::var", "env::vars"],
        within: LIBRARIES,
        except: &["mesh-core/src/bootstrap/", "mesh-core/src/source/file", "mesh-tower/src/mesh"],
        tests_too: false,
    },
];

/// Every name stays where it may be said.
pub(crate) fn names(file: &File) -> Vec<Fault> {
    let begins = |places: &[&str]| places.iter().any(|place| file.path.starts_with(place));
    let holds = |rule: &&Names| begins(rule.within) && !begins(rule.except) && (rule.tests_too || !file.is_test());
    let said = |name: &'static str| {
        lines_saying(file, name).into_iter().map(move |line| Fault::new(file, line, format!("names `{name}`")))
    };
    NAMES.iter().filter(holds).flat_map(|rule| rule.names).flat_map(|name| said(name)).collect()
}

fn lines_saying(file: &File, name: &str) -> Vec<usize> {
    if !name.contains("::") {
        return file.lines_naming(name);
    }
    file.code.lines().enumerate().filter(|(_, line)| line.contains(name)).map(|(at, _)| at + 1).collect()
}

/// Modules of mesh-core, and those of its modules that they may not name.
const CORE_LAYERS: &[(&[&str], &[&str])] = &[
    // What everyone shares knows no one, but for the balancing policies that a cluster carries ready to build.
    (
        &["model"],
        &[
            "bootstrap",
            "source",
            "ads",
            "decode",
            "dns",
            "graph",
            "snapshot",
            "publish",
            "config",
            "target",
            "route",
            "policy",
            "chain",
            "identity",
            "event",
        ],
    ),
    // Decisions are given facts; they do not know where configuration comes from.
    (
        &["route", "policy", "balance", "chain", "identity"],
        &["source", "ads", "decode", "graph", "snapshot", "publish", "config"],
    ),
    // Load is counted for a server, and says so to who reports it; what a cluster is, it does not know.
    (&["load"], &["source", "ads", "decode", "graph", "snapshot", "config", "lrs", "balance"]),
    // The stream knows type URLs and bytes; what resources mean and what becomes of them is not its business.
    (&["ads"], &["graph", "snapshot", "publish", "config", "target", "route", "policy", "balance", "chain"]),
    (&["decode"], &["source", "ads", "graph", "snapshot", "publish", "config", "target", "chain"]),
    (&["graph"], &["source", "ads", "publish", "config", "policy", "chain"]),
];

/// The layers inside mesh-core.
pub(crate) fn core_layers(file: &File) -> Vec<Fault> {
    let Some(inside) = file.path.strip_prefix("mesh-core/src/").filter(|_| !file.is_test()) else { return Vec::new() };
    let module = inside.split(['/', '.']).next().unwrap_or(inside);
    let denied = CORE_LAYERS.iter().filter(|(of, _)| of.contains(&module)).flat_map(|(_, denied)| *denied);
    let named = |denied: &'static str| {
        let piece = format!("crate::{denied}");
        let says = move |line: &str| {
            line.match_indices(&piece).any(|(at, _)| {
                // A longer word is another module.
                words(&line[at + "crate::".len()..]).next() == Some(denied)
            })
        };
        let lines = file.code.lines().enumerate().filter(move |(_, line)| says(line));
        lines.map(move |(at, _)| Fault::new(file, at + 1, format!("`{module}` names `{denied}`"))).collect::<Vec<_>>()
    };
    denied.flat_map(|denied| named(denied)).collect()
}

/// In which order a file lists its modules.
pub(crate) struct Order {
    file: &'static str,
    modules: &'static [&'static str],
    /// Whether each module must be in the list.
    complete: bool,
}

pub(crate) const ORDERS: &[Order] = &[
    Order {
        file: "mesh-core/src/lib.rs",
        modules: &[
            "model",
            "resource",
            "bootstrap",
            "source",
            "ads",
            "decode",
            "dns",
            "graph",
            "snapshot",
            "publish",
            "config",
            "lrs",
            "orca",
            "certificates",
            "authz",
            "target",
            "route",
            "policy",
            "balance",
            "load",
            "chain",
            "identity",
            "error",
            "event",
            "status",
            "line",
            "planted",
        ],
        complete: true,
    },
    Order { file: "mesh-tower/src/lib.rs", modules: &["mesh", "outbound", "inbound"], complete: false },
    Order {
        file: "mesh-tower/src/outbound/mod.rs",
        modules: &["stack", "resolve", "route", "deadline", "filter", "retry", "limit", "pick"],
        complete: false,
    },
    Order {
        file: "mesh-tower/src/inbound/mod.rs",
        modules: &["accept", "identify", "normalize", "route", "authenticate", "authorize"],
        complete: false,
    },
];

/// Modules are listed as the path goes.
pub(crate) fn path_order(order: &Order, tree: &Tree) -> Vec<Fault> {
    // A folder that is not there yet has no order.
    let Some(file) = tree.get(order.file) else { return Vec::new() };
    let (mut faults, mut reached) = (Vec::new(), 0);
    for (at, line) in file.code.lines().enumerate() {
        let Some(module) = module_listed(line) else { continue };
        match order.modules.iter().position(|name| *name == module) {
            None if order.complete => {
                faults.push(Fault::new(
                    file,
                    at + 1,
                    format!("`{module}` has no place on the path: give it one in ORDERS"),
                ));
            }
            None => {}
            Some(place) if place < reached => {
                let before = order.modules[reached];
                faults.push(Fault::new(file, at + 1, format!("`{module}` comes before `{before}` on the path")));
            }
            Some(place) => reached = place,
        }
    }
    faults
}

fn module_listed(line: &str) -> Option<&str> {
    let line = line.trim().strip_suffix(';')?;
    ["mod ", "pub mod ", "pub(crate) mod "].iter().find_map(|start| line.strip_prefix(start))
}

/// The head and the size of a file.
pub(crate) fn file_shape(file: &File) -> Vec<Fault> {
    let mut faults = Vec::new();
    if !file.text.starts_with("//!") {
        faults.push(Fault::new(file, 1, "does not open with `//!`"));
    }
    let lines = file.lines_of_code();
    if !file.is_test() && lines > LONGEST_FILE {
        faults.push(Fault::new(file, 1, format!("has {lines} lines of code")));
    }
    faults
}

/// What fails without a word.
pub(crate) fn shortcuts(file: &File) -> Vec<Fault> {
    const SHORTCUTS: [&str; 4] = [".unwrap()", "todo!", "unimplemented!", "dbg!"];
    if file.is_test() || file.path.starts_with("benches/") {
        return Vec::new();
    }
    let said = |name: &'static str| {
        let lines = file.code.lines().enumerate().filter(move |(_, line)| line.contains(name));
        lines.map(move |(at, _)| Fault::new(file, at + 1, format!("has `{name}`")))
    };
    SHORTCUTS.into_iter().flat_map(said).collect()
}

/// What names a machine: its folders, and the hosts it fetches packages from. Spelled in halves, so that this file is clean.
const MACHINE_NAMES: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
    concat!("crates", ".io/"),
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("sum.golang", ".org"),
    concat!("registry.npmjs", ".org"),
    concat!("repo.maven", ".apache.org"),
    concat!("deb.debian", ".org"),
];

/// No machine in any file.
pub(crate) fn machine_names(file: &File) -> Vec<Fault> {
    let lines = file.text.lines().enumerate();
    let found = lines.flat_map(|(at, line)| {
        MACHINE_NAMES.iter().filter(move |name| line.contains(**name)).map(move |name| (at, name))
    });
    found.map(|(at, name)| Fault::new(file, at + 1, format!("holds `{name}`"))).collect()
}

/// How long functions are.
#[derive(Default)]
pub(crate) struct Sizes {
    all: usize,
    long: Vec<(String, Function)>,
}

impl Sizes {
    /// Adds the functions of a file, unless it is a test.
    pub(crate) fn measure(&mut self, file: &File) {
        if file.is_test() {
            return;
        }
        for function in file.functions() {
            self.all += 1;
            if function.length > LONG_FUNCTION {
                self.long.push((file.path.clone(), function));
            }
        }
    }

    /// Those that no one may write.
    pub(crate) fn too_long(&self) -> Vec<Fault> {
        let over = self.long.iter().filter(|(_, function)| function.length > LONGEST_FUNCTION);
        over.map(|(path, function)| {
            let what = format!("`{}` has {} lines", function.name, function.length);
            Fault { path: path.clone(), line: function.line, what }
        })
        .collect()
    }

    /// How many are long, and of how many.
    pub(crate) fn share(&self) -> (usize, usize) {
        (self.long.len(), self.all)
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, function) in &self.long {
            writeln!(f, "  {path}:{}: `{}` has {} lines", function.line, function.name, function.length)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files that break a rule of names, and the same words where they are at home.
    #[test]
    fn names_are_caught_outside_their_place_only() {
        let cases = [
            ("mesh-core/src/route/a.rs", "use tower::Service;", true),
            ("mesh-core/src/route/tests/a.rs", "use tonic::Status;", true),
            ("mesh-core/src/route/a.rs", "use rustls_pki_types::CertificateDer;", false),
            ("mesh-core/src/route/a.rs", "// tower has no place here", false),
            ("mesh-tower/src/connect/a.rs", "use rustls::ClientConfig;", true),
            ("mesh-tower/src/connect/a.rs", "let c = tokio_rustls::TlsConnector::from(x);", true),
            ("mesh-tower/src/secure/a.rs", "use rustls::ClientConfig;", false),
            ("mesh-tower/src/inbound/a.rs", "use aws_lc_rs::hmac;", true),
            ("mesh-core/src/policy/a.rs", "aws_lc_rs::hmac::verify(k, m, s)", true),
            ("mesh-tower/src/inbound/tests/a.rs", "use rustls::ClientConfig;", false),
            ("mesh-tower/src/outbound/a.rs", "use opentelemetry::KeyValue;", true),
            ("mesh-tower/src/observe/a.rs", "use opentelemetry::KeyValue;", false),
            ("mesh-core/src/graph/mod.rs", "use envoy_types::pb::Any;", true),
            ("mesh-core/src/decode/a.rs", "use envoy_types::pb::Any;", false),
            ("mesh-tower/src/mesh.rs", "use mesh_grpc::Channel;", true),
            ("mesh-core/src/policy/a.rs", "let now = Instant::now();", true),
            ("mesh-core/src/ads/driver.rs", "let now = Instant::now();", false),
            ("mesh-tower/src/connect/a.rs", "std::env::var(\"X\")", true),
        ];
        for (path, text, is_bad) in cases {
            assert_eq!(!names(&File::new(path, text)).is_empty(), is_bad, "{path}: {text}");
        }
    }

    #[test]
    fn layers_of_the_core_are_caught() {
        let cases = [
            ("mesh-core/src/route/a.rs", "use crate::decode::Fault;", true),
            ("mesh-core/src/balance/mod.rs", "fn a(x: &crate::graph::Graph) {}", true),
            ("mesh-core/src/ads/engine.rs", "use crate::graph::Graph;", true),
            ("mesh-core/src/model/a.rs", "use crate::ads::Engine;", true),
            ("mesh-core/src/route/a.rs", "use crate::decoder_like::X;", false),
            ("mesh-core/src/route/tests/a.rs", "use crate::decode::Fault;", false),
            ("mesh-core/src/source/a.rs", "use crate::ads::Engine;", false),
        ];
        for (path, text, is_bad) in cases {
            assert_eq!(!core_layers(&File::new(path, text)).is_empty(), is_bad, "{path}: {text}");
        }
    }

    #[test]
    fn a_module_out_of_order_is_caught() {
        let faults = |text: &str| path_order(&ORDERS[0], &Tree::of(vec![File::new(ORDERS[0].file, text)]));
        assert_eq!(faults("pub mod bootstrap;\nmod ads;\n#[cfg(test)]\nmod tests;\npub mod route;"), []);
        assert_eq!(faults("pub mod route;\npub mod ads;").len(), 1);
        assert_eq!(faults("pub mod route;\npub mod surprise;").len(), 1);
    }

    #[test]
    fn a_file_without_head_or_of_great_length_is_caught() {
        let shape = |path: &str, text: &str| file_shape(&File::new(path, text)).len();
        let long = format!("//! A.\n{}", "a();\n".repeat(LONGEST_FILE + 1));
        assert_eq!(shape("a.rs", "//! A.\nfn a() {}"), 0);
        assert_eq!(shape("a.rs", "fn a() {}"), 1);
        assert_eq!(shape("a.rs", &long), 1);
        assert_eq!(shape("a/tests.rs", &long), 0);
    }

    #[test]
    fn shortcuts_are_caught() {
        for bad in ["a.unwrap();", "todo!()", "dbg!(a)", "unimplemented!()"] {
            assert_eq!(shortcuts(&File::new("mesh-core/src/a.rs", bad)).len(), 1, "{bad}");
        }
        let fine = "a.expect(\"it was checked\"); a.unwrap_or(1); // no todo! here\n#[cfg(test)]\nmod t { fn a() { b.unwrap() } }";
        assert_eq!(shortcuts(&File::new("mesh-core/src/a.rs", fine)), []);
    }

    #[test]
    fn names_of_machines_are_caught() {
        for name in MACHINE_NAMES {
            assert!(!machine_names(&File::new("README.md", &format!("see {name}x"))).is_empty(), "{name}");
        }
        assert_eq!(machine_names(&File::new("README.md", "run target/release/quickstart")), []);
    }

    #[test]
    fn long_functions_are_caught() {
        let function = |lines: usize| format!("fn a() {{\n{}}}\n", "b();\n".repeat(lines - 2));
        let sizes = |lines| {
            let mut sizes = Sizes::default();
            sizes.measure(&File::new("mesh-core/src/a.rs", &function(lines)));
            (sizes.share(), sizes.too_long().len())
        };
        assert_eq!(sizes(LONG_FUNCTION), ((0, 1), 0));
        assert_eq!(sizes(LONG_FUNCTION + 1), ((1, 1), 0));
        assert_eq!(sizes(LONGEST_FUNCTION + 1), ((1, 1), 1));
    }
}
