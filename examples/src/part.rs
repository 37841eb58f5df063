//! A part of a program in a process of its own, so that what is measured of one is not the other's.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::Failure;

/// How long a process may take to say a line; it may have a hundred thousand endpoints to encode, or be told to go on for a
/// minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// This program again, with other arguments. It ends with its owner.
#[derive(Debug)]
pub struct Part {
    name: String,
    child: Child,
    stdin: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Part {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// The system refuses to.
    pub async fn start(arguments: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments);
        Self::spawn(arguments[0], command)
    }

    /// Starts it by a shell that does `first` before: `ulimit -n 256`.
    ///
    /// # Errors
    ///
    /// The system refuses to.
    pub async fn start_after(first: &str, arguments: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{first} && exec \"$0\" \"$@\"")]);
        command.arg(std::env::current_exe()?).args(arguments);
        Self::spawn(arguments[0], command)
    }

    fn spawn(name: &str, mut command: Command) -> Result<Self, Failure> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let stdin = child.stdin.take().ok_or("a process has no stdin")?;
        let said = BufReader::new(child.stdout.take().ok_or("a process has no stdout")?).lines();
        Ok(Self { name: name.to_owned(), child, stdin, said })
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Tells it a line.
    ///
    /// # Errors
    ///
    /// It does not listen any more.
    pub async fn say(&mut self, line: &str) -> Result<(), Failure> {
        Ok(self.stdin.write_all(format!("{line}\n").as_bytes()).await?)
    }

    /// What it says next.
    ///
    /// # Errors
    ///
    /// It ended, or says nothing for two minutes.
    pub async fn line(&mut self) -> Result<String, Failure> {
        let line = timeout(PATIENCE, self.said.next_line()).await;
        let line = line.map_err(|_| format!("the part {} says nothing", self.name))??;
        Ok(line.ok_or_else(|| format!("the part {} ended", self.name))?)
    }
}
