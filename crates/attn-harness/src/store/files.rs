//! Files that are either replaced as a whole or as they were.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use polars::prelude::{DataFrame, KeyValueMetadata, ParquetReader, ParquetWriter, PolarsError, SerReader};

use super::StoreError;

pub(super) fn write_parquet(
    path: &Path,
    mut frame: DataFrame,
    metadata: &[(String, String)],
) -> Result<(), StoreError> {
    // Through memory: tables are small, and errors of the disk stay errors of the disk.
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes)
        .with_key_value_metadata(Some(KeyValueMetadata::from_static(metadata.to_vec())))
        .finish(&mut frame)?;
    replace_file(path, &bytes)
}

pub(super) fn read_parquet(path: &Path) -> Result<DataFrame, StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let damaged = |error: PolarsError| StoreError::Damaged {
        path: path.to_path_buf(),
        reason: error.to_string(),
    };
    ParquetReader::new(file).finish().map_err(damaged)
}

/// Replaces a file as a whole: written beside it, brought to the disk, renamed.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".attn-bench-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask
    let mut file = builder
        .tempfile_in(folder)
        .map_err(StoreError::io("write", path))?;
    file.write_all(bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(StoreError::io("write", path))?;
    file.persist(path)
        .map_err(|error| StoreError::io("write", path)(error.error))?;
    Ok(())
}

pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(StoreError::io("write", path))
}

/// Brings new names to the disk. Not every file system can, and losing a name is no wrong result.
pub(super) fn sync_folder(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

pub(super) fn read_text(path: &Path) -> Result<Option<String>, StoreError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::io("read", path)(source)),
    }
}
