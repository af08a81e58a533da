//! Files that the configuration names: values, certificates, keys.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Reads a file of at most `bytes_max`. Opening a pipe could wait forever, so only regular files are read.
///
/// # Errors
/// It cannot be read, is no regular file, or is larger.
pub(crate) fn read_regular_file(path: &Path, bytes_max: u32) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("this is not a regular file"));
    }
    let mut bytes = Vec::new();
    let mut file = File::open(path)?.take(u64::from(bytes_max) + 1);
    match file.read_to_end(&mut bytes)? > bytes_max as usize {
        true => Err(io::Error::other(format!(
            "it is larger than {} KiB",
            bytes_max / 1024
        ))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_up_to_the_bound_are_read() {
        let path = std::env::temp_dir().join(format!("regular-file-{}", std::process::id()));
        fs::write(&path, [b'x'; 2048]).unwrap();
        let read = |path: &Path, bytes_max| {
            let read = read_regular_file(path, bytes_max).map(|bytes| bytes.len());
            read.map_err(|error| error.to_string())
        };
        assert_eq!(read(&path, 2048), Ok(2048));
        assert_eq!(read(&path, 2047), Err("it is larger than 1 KiB".to_owned()));
        fs::remove_file(&path).unwrap();
        assert!(read(&path, 2048).unwrap_err().contains("No such file"));
        let folder = std::env::temp_dir();
        let irregular = Err("this is not a regular file".to_owned());
        assert_eq!(read(&folder, 2048), irregular);
        assert_eq!(read(Path::new("/dev/zero"), 2048), irregular);
    }
}
