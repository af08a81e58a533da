//! A listening socket in the file system.
//!
//! It is bound under another name and then renamed, so that no client ever finds it with another mode or not yet
//! listening. The file of a process that has ended is replaced. With `reuse_port` so is that of a process that still
//! runs: clients reach the new one from then on.

use std::fs::{self, Permissions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// The file of a socket that is bound.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Its name before anybody is to find it.
    hidden: PathBuf,
    /// What tells it from a file that another process has put in its place.
    inode: u64,
}

/// Binds a socket that will be found at `path`, once [`SocketFile::show`] is called.
///
/// # Errors
/// Another process listens at `path` and is not to be `replaced`, or `path` is not a socket.
pub(super) fn bind(path: &Path, mode: u32, replaced: bool) -> io::Result<(Socket, SocketFile)> {
    make_way(path, replaced)?;
    let hidden = hidden_name(path);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&hidden)?)?;
    fs::set_permissions(&hidden, Permissions::from_mode(mode))?;
    let file = SocketFile {
        inode: fs::metadata(&hidden)?.ino(),
        path: path.to_owned(),
        hidden,
    };
    Ok((socket, file))
}

impl SocketFile {
    /// Lets clients find the socket, which must listen.
    pub(super) fn show(&self) -> io::Result<()> {
        fs::rename(&self.hidden, &self.path)
    }

    /// Lets no new client find the socket. Leaves the file of another process alone.
    pub(super) fn remove(&self) {
        let is_own =
            |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.ino() == self.inode);
        for path in [&self.path, &self.hidden] {
            if is_own(path) {
                // If somebody else has removed it, nothing is left to do.
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// A name beside `path` that no other process chooses, also one that starts at the same moment. A path may have 100
/// bytes, and the kernel takes 107.
fn hidden_name(path: &Path) -> PathBuf {
    let random = RandomState::new().build_hasher().finish();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:06x}", random & 0xff_ffff));
    PathBuf::from(name)
}

/// Checks that the file at `path` may be replaced: there is none, or a socket at which nobody listens.
fn make_way(path: &Path, replaced: bool) -> io::Result<()> {
    if !is_socket(path)? || replaced {
        return Ok(());
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Its queue is full, or it may not be asked.
        Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Whether there is a socket at `path`.
///
/// # Errors
/// There is something else.
fn is_socket(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(found) if found.file_type().is_socket() => Ok(true),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("sm-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn listen(path: &Path, replaced: bool) -> io::Result<(Socket, SocketFile)> {
        let (socket, file) = bind(path, 0o600, replaced)?;
        socket.listen(1)?;
        Ok((socket, file))
    }

    #[test]
    fn a_socket_is_found_once_it_is_shown_and_until_it_is_removed() {
        let folder = Folder::new("shown");
        let path = folder.0.join("a.sock");
        let (_socket, file) = listen(&path, false).unwrap();
        assert!(UnixStream::connect(&path).is_err());
        file.show().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        file.remove();
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_was_left_is_replaced_and_a_listener_only_if_it_is_to_be() {
        let folder = Folder::new("left");
        let path = folder.0.join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (_first, first_file) = listen(&path, false).unwrap();
        first_file.show().unwrap();
        let error = listen(&path, false).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let (second, second_file) = listen(&path, true).unwrap();
        second_file.show().unwrap();
        // The file is the other one's now.
        first_file.remove();
        UnixStream::connect(&path).unwrap();
        second.accept().unwrap();
        second_file.remove();
        assert!(!path.exists());
    }

    #[test]
    fn two_that_begin_at_the_same_time_can_both_be_found() {
        let folder = Folder::new("two");
        let path = folder.0.join("a.sock");
        let (_first, first_file) = listen(&path, true).unwrap();
        let (second, second_file) = listen(&path, true).unwrap();
        first_file.show().unwrap();
        UnixStream::connect(&path).unwrap();
        second_file.show().unwrap();
        first_file.remove();
        UnixStream::connect(&path).unwrap();
        second.accept().unwrap();
        second_file.remove();
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let folder = Folder::new("file");
        let path = folder.0.join("a.sock");
        fs::write(&path, "text").unwrap();
        let error = listen(&path, true).err().unwrap();
        assert_eq!(error.to_string(), "there is a file that is no socket");
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        let missing = folder.0.join("none/a.sock");
        let error = listen(&missing, false).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
