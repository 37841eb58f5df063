//! The program `control-plane`, as its user starts and ends it.
#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mesh-control-plane-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder can be made");
        Self(path)
    }

    /// A file in it with this text.
    fn file(&self, text: &str) -> PathBuf {
        let path = self.0.join("mesh.yaml");
        std::fs::write(&path, text).expect("a temporary file can be written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program, which does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_control-plane"));
    program.args(["--listen", "127.0.0.1:0"]);
    program
}

const GREETER: &str = "{kind: Service, metadata: {name: greeter}, spec: {ports: [{port: 50051}]}}";

#[test]
fn it_serves_until_it_is_asked_to_end() {
    for signal in ["-INT", "-TERM"] {
        let folder = Folder::new(signal);
        let started = program()
            .arg(folder.file(GREETER))
            .args(["--certificates", folder.0.to_str().unwrap(), "--identity", "shop/cart"])
            .stdout(Stdio::piped())
            .spawn();
        let mut running = Running(started.unwrap());
        let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        let bootstrap = lines.next().unwrap();
        let address = lines.next().unwrap();
        let address = address.strip_prefix("listening on ").unwrap();
        TcpStream::connect(address).unwrap();
        let bootstrap = std::fs::read_to_string(bootstrap.strip_prefix("GRPC_XDS_BOOTSTRAP=").unwrap()).unwrap();
        let bootstrap = mesh_core::bootstrap::Bootstrap::from_json(&bootstrap).unwrap();
        assert_eq!((&*bootstrap.servers[0].uri, &*bootstrap.node.id), (address, "shop~cart"));
        for file in ["cert-chain.pem", "key.pem", "root-cert.pem"] {
            assert!(folder.0.join("shop/cart").join(file).exists(), "{file}");
        }
        let asked = Command::new("kill").args([signal, &running.0.id().to_string()]).status().unwrap();
        assert!(asked.success());
        assert!(running.0.wait().unwrap().success(), "{signal}");
    }
}

#[test]
fn a_file_that_is_not_good_is_named_with_its_line() {
    let folder = Folder::new("bad");
    let path = folder.file(&format!("{GREETER}\n---\n\nkind: Nonsense\n"));
    let ended = program().arg(&path).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains(&format!("{}:4", path.display())), "{said}");
}

#[test]
fn certificates_need_an_identity_that_is_one() {
    let folder = Folder::new("identity");
    let file = folder.file(GREETER);
    let certificates = ["--certificates", folder.0.to_str().unwrap()];
    assert!(!program().arg(&file).args(certificates).output().unwrap().status.success());
    let ended = program().arg(&file).args(certificates).args(["--identity", "cart"]).output().unwrap();
    assert!(String::from_utf8(ended.stderr).unwrap().contains("NAMESPACE/SERVICE-ACCOUNT"));
}
