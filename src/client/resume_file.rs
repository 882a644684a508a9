//! Where a program that stops keeps how far it has come.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::proto::v1::{
    CredentialEventKind, WatchCredentialStatusRequest, watch_credential_status_request::Start, watch_scope::Target,
};

/// What a file may be at most before it is taken for something else.
const LONGEST: u64 = 1 << 20;
const FORMAT: u32 = 1;

/// A file with the resume token of the last message that was applied, and with what it is the position in.
///
/// It is replaced as a whole, durably, and can be read by its owner alone. A file that is not a resume file, or one of
/// another choice, is never written to. Whose token it is, the broker alone can tell: see
/// [`super::ClientError::refuses_resume_token`].
pub struct ResumeFile {
    path: PathBuf,
    content: Content,
    /// Whether the file has it.
    saved: bool,
}

#[derive(Serialize, Deserialize)]
struct Content {
    claviger_resume_file: u32,
    scopes: Vec<String>,
    kinds: Vec<String>,
    /// base64url, without padding. Empty: nothing was applied yet.
    resume_token: String,
}

/// There is no going on with the file.
#[derive(Debug, thiserror::Error)]
pub enum ResumeFileError {
    #[error("cannot read {}: check who may", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is no resume file and was left as it is: name another file", path.display())]
    Foreign { path: PathBuf },
    #[error(
        "{} is the position in another choice of connections or kinds, and was left as it is: name another file, or \
         remove it to begin anew", path.display()
    )]
    OtherChoice { path: PathBuf },
    #[error("cannot write {}: check the directory and the disk", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
}

impl ResumeFile {
    /// Opens the file for what `request` watches, and makes the request go on from where it says. Where there is no
    /// file yet, the request stays as it is.
    ///
    /// # Errors
    /// The file cannot be read, is something else, or is the position in another choice of scopes and kinds.
    pub fn open(path: impl Into<PathBuf>, request: &mut WatchCredentialStatusRequest) -> Result<Self, ResumeFileError> {
        let path = path.into();
        let chosen = Content {
            claviger_resume_file: FORMAT,
            scopes: sorted(request.scopes.iter().map(|scope| named(scope.target.as_ref()))),
            kinds: sorted(request.kinds().map(|kind: CredentialEventKind| kind.as_str_name().to_owned())),
            resume_token: String::new(),
        };
        let Some(text) = read(&path)? else { return Ok(Self { path, content: chosen, saved: true }) };
        let content = serde_json::from_slice::<Content>(&text).ok();
        let Some(content) = content.filter(|content| content.claviger_resume_file == FORMAT) else {
            return Err(ResumeFileError::Foreign { path });
        };
        if (&content.scopes, &content.kinds) != (&chosen.scopes, &chosen.kinds) {
            return Err(ResumeFileError::OtherChoice { path });
        }
        let token = URL_SAFE_NO_PAD.decode(&content.resume_token).ok().filter(|token| !token.is_empty());
        let Some(token) = token else { return Err(ResumeFileError::Foreign { path }) };
        request.start = Some(Start::ResumeToken(token));
        Ok(Self { path, content, saved: true })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// That the message with this token was applied, and with it everything before. A message without one changes
    /// nothing. [`Self::save`] writes it down.
    pub fn applied(&mut self, resume_token: &[u8]) {
        if !resume_token.is_empty() {
            self.content.resume_token = URL_SAFE_NO_PAD.encode(resume_token);
            self.saved = false;
        }
    }

    /// That the broker has lost the position (`resync`): until something is applied again there is none to go on from.
    pub fn lost(&mut self) {
        self.content.resume_token.clear();
        self.saved = false;
    }

    /// Writes down what was applied, if anything was since the last time; where the position is lost, there is no file. Blocks until it is durable: call it when there
    /// is nothing else to do. Whoever dies before it sees some messages again, and misses none.
    ///
    /// # Errors
    /// The file cannot be written; then it is as it was.
    pub fn save(&mut self) -> Result<(), ResumeFileError> {
        if !self.saved {
            let written = if self.content.resume_token.is_empty() {
                remove(&self.path)
            } else {
                let text = serde_json::to_vec(&self.content).map_err(io::Error::from);
                text.and_then(|text| replace(&self.path, &text))
            };
            written.map_err(|source| ResumeFileError::Unwritable { path: self.path.clone(), source })?;
            self.saved = true;
        }
        Ok(())
    }
}

/// `None`: there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, ResumeFileError> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ResumeFileError::Unreadable { path: path.to_owned(), source }),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whoever reads the file finds the old text or the new one, also after a loss of power.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // Left by one who died over it. It is made anew, so that nobody else's file or link is written to.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn named(target: Option<&Target>) -> String {
    match target {
        Some(Target::ConnectionId(id) | Target::CredentialId(id)) => id.clone(),
        Some(Target::Agent(agent)) => format!("agent {agent}"),
        Some(Target::Own(_)) => "own".to_owned(),
        None => String::new(),
    }
}

fn sorted(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<_> = texts.collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::proto::v1::WatchScope;

    fn watching(connections: &[&str]) -> WatchCredentialStatusRequest {
        let scope = |id: &&str| WatchScope { target: Some(Target::ConnectionId((*id).to_owned())) };
        let start = Some(Start::Snapshot(true));
        WatchCredentialStatusRequest { scopes: connections.iter().map(scope).collect(), start, ..Default::default() }
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("position");
        (directory, path)
    }

    #[test]
    fn what_was_applied_and_saved_is_where_the_next_one_begins() {
        let (_directory, path) = place();
        let mut request = watching(&["con_1", "con_2"]);
        let mut file = ResumeFile::open(&path, &mut request).expect("there is none yet");
        assert_eq!(request.start, Some(Start::Snapshot(true)));
        file.save().expect("nothing to save");
        assert!(!path.exists(), "nothing was applied");
        for token in [&b"one"[..], b"two", b""] {
            file.applied(token);
        }
        file.save().expect("a writable directory");
        file.applied(b"never saved");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        // The same choice in other words.
        let mut again = watching(&["con_2", "con_1", "con_2"]);
        ResumeFile::open(&path, &mut again).expect("its own file");
        assert_eq!(again.start, Some(Start::ResumeToken(b"two".to_vec())));
    }

    #[test]
    fn a_position_that_is_lost_is_not_gone_on_from() {
        let (_directory, path) = place();
        let mut file = ResumeFile::open(&path, &mut watching(&[])).expect("there is none yet");
        for token in [b"one", b"two"] {
            file.applied(token);
            file.save().expect("a writable directory");
            file.lost();
            file.save().expect("a writable directory");
            let mut request = watching(&[]);
            ResumeFile::open(&path, &mut request).expect("there is none any more");
            assert_eq!(request.start, Some(Start::Snapshot(true)));
        }
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_as_it_is() {
        let (_directory, path) = place();
        let mut file = ResumeFile::open(&path, &mut watching(&["con_1"])).expect("there is none yet");
        file.applied(b"token");
        file.save().expect("a writable directory");
        let own = fs::read(&path).expect("it is there");
        let tokenless = String::from_utf8_lossy(&own).replace(&URL_SAFE_NO_PAD.encode("token"), "");
        let newer = String::from_utf8_lossy(&own).replace("\"claviger_resume_file\":1", "\"claviger_resume_file\":2");
        for (text, connection) in [
            (own.as_slice(), "con_2"),
            (tokenless.as_bytes(), "con_1"),
            (newer.as_bytes(), "con_1"),
            (&own[..own.len() / 2], "con_1"),
            (b"", "con_1"),
            (b"export PATH=/bin\n", "con_1"),
        ] {
            fs::write(&path, text).expect("a writable file");
            let mut request = watching(&[connection]);
            let refused = ResumeFile::open(&path, &mut request).err().expect("it is refused");
            assert_eq!(matches!(refused, ResumeFileError::OtherChoice { .. }), connection == "con_2", "{refused}");
            assert_eq!(request, watching(&[connection]));
            assert_eq!(fs::read(&path).expect("it is there"), text);
        }
    }

    #[test]
    fn what_stands_where_the_new_file_is_made_is_not_written_through() {
        let (directory, path) = place();
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, "precious").expect("a writable directory");
        symlink(&elsewhere, directory.path().join("position.new")).expect("a writable directory");
        let mut file = ResumeFile::open(&path, &mut watching(&[])).expect("there is none yet");
        file.applied(b"token");
        file.save().expect("a writable directory");
        assert_eq!(fs::read(&elsewhere).expect("it is there"), b"precious");
        assert!(fs::symlink_metadata(&path).expect("it is there").is_file());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_and_tried_again() {
        let (directory, path) = place();
        let path = directory.path().join("missing").join(path.file_name().expect("it has a name"));
        let mut file = ResumeFile::open(&path, &mut watching(&[])).expect("there is none yet");
        file.applied(b"token");
        assert!(matches!(file.save(), Err(ResumeFileError::Unwritable { .. })));
        fs::create_dir(directory.path().join("missing")).expect("a writable directory");
        file.save().expect("a writable directory");
        assert!(path.exists());
    }
}
