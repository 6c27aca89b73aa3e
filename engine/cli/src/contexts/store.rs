//! The file that contexts are kept in: its owner's alone, and replaced as a whole.

use std::{
    env,
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use levada_protocol::error::ErrorCode;
use levada_terminal::Failure;

use super::Contexts;

/// The file's name in its directory.
const FILE: &str = "contexts.toml";
/// Mode of a directory that is made for it.
const DIRECTORY_MODE: u32 = 0o700;
/// Bits of a mode by which others could read or change the file, and by which they could replace it.
const FILE_OF_OTHERS: u32 = 0o077;
const DIRECTORY_OF_OTHERS: u32 = 0o022;

/// Where contexts are kept.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
}

impl Store {
    /// `LEVADA_CONFIG_DIR`, or else the folder levada in `XDG_CONFIG_HOME`, or else in `~/.config`; none if the environment
    /// names none of them.
    pub(crate) fn of_environment() -> Option<Self> {
        Self::at(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
    }

    fn at(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<Self> {
        // A relative XDG_CONFIG_HOME is to be ignored, says its specification.
        let home = || variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        let folder = || home().or_else(|| Some(variable("HOME")?.join(".config")));
        let directory = variable("LEVADA_CONFIG_DIR").or_else(|| Some(folder()?.join("levada")))?;
        Some(Self { directory })
    }

    /// As [`Store::of_environment`].
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn required() -> Result<Self, Failure> {
        Self::of_environment().ok_or_else(|| {
            wrong("there is no place for contexts: LEVADA_CONFIG_DIR, XDG_CONFIG_HOME and HOME are not set")
        })
    }

    /// The file.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// What is kept; nothing if there is no file.
    ///
    /// # Errors
    /// If others may read the file or replace it, or it cannot be read, or holds something else.
    pub(crate) fn read(&self) -> Result<Contexts, Failure> {
        let path = self.file();
        let unread = |error: io::Error| wrong(format!("{} cannot be read: {error}", path.display()));
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contexts::default()),
            Err(error) => return Err(unread(error)),
        };
        let mode = file.metadata().map_err(unread)?.mode() & 0o777;
        if mode & FILE_OF_OTHERS != 0 {
            let message = format!(
                "others may read or change {}, which may hold tokens: its mode is {mode:o}, expected 600",
                path.display()
            );
            return Err(wrong(message).hint(format!(
                "`chmod 600 {}`; if somebody else may have read it, revoke its tokens: `levada token revoke`",
                path.display()
            )));
        }
        self.check_directory()?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(unread)?;
        Contexts::parse(&text).map_err(|what| wrong(format!("{}: {what}", path.display())))
    }

    /// Changes what is kept. If the change fails, nothing is written.
    ///
    /// # Errors
    /// The change's own, or what is wrong with the file.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Contexts) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let directory = &self.directory;
        let unwritten =
            |error: io::Error| wrong(format!("{} cannot be written: {error}", self.file().display()));
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(unwritten)?;
        self.check_directory()?;
        // Of two commands at the same time the second waits, so that it does not undo the first.
        let turn = File::open(directory).map_err(unwritten)?;
        turn.lock().map_err(unwritten)?;
        let mut contexts = self.read()?;
        let done = change(&mut contexts)?;
        write(directory, &self.file(), &contexts.to_text()).map_err(unwritten)?;
        turn.sync_all().map_err(unwritten)?;
        Ok(done)
    }

    fn check_directory(&self) -> Result<(), Failure> {
        let path = self.directory.display();
        let metadata = fs::metadata(&self.directory)
            .map_err(|error| wrong(format!("the directory {path} cannot be read: {error}")))?;
        let mode = metadata.mode() & 0o777;
        if mode & DIRECTORY_OF_OTHERS == 0 {
            return Ok(());
        }
        let message =
            format!("others may change the files in {path}: the directory's mode is {mode:o}, expected 700");
        Err(wrong(message)
            .hint(format!("`chmod 700 {path}`, or name another directory by LEVADA_CONFIG_DIR")))
    }
}

/// Puts a new file of mode 600 in the place of the old one.
fn write(directory: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut new = tempfile::Builder::new().prefix(".contexts-").tempfile_in(directory)?;
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(path)?;
    Ok(())
}

fn wrong(what: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::ConfigInvalid, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_the_one_that_the_environment_names_first() {
        let at = |variables: &[(&str, &str)]| {
            let found = |name: &str| {
                let value = variables.iter().find(|(known, _)| *known == name);
                value.map(|(_, value)| PathBuf::from(value))
            };
            Store::at(found).map(|store| store.file().display().to_string())
        };
        let own = ("LEVADA_CONFIG_DIR", "etc");
        let (xdg, home) = (("XDG_CONFIG_HOME", "/xdg"), ("HOME", "/home/me"));
        for (variables, file) in [
            (&[own, xdg, home][..], Some("etc/contexts.toml")),
            (&[xdg, home], Some("/xdg/levada/contexts.toml")),
            (&[("XDG_CONFIG_HOME", "xdg"), home], Some("/home/me/.config/levada/contexts.toml")),
            (&[home], Some("/home/me/.config/levada/contexts.toml")),
            (&[], None),
        ] {
            assert_eq!(at(variables).as_deref(), file, "{variables:?}");
        }
    }
}
