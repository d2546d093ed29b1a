//! Files that are either replaced as a whole or as they were.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use polars::io::parquet::write::BatchedWriter;
use polars::prelude::{
    DataFrame, KeyValueMetadata, ParallelStrategy, ParquetCompression, ParquetReader, ParquetWriter,
    PolarsError, SerReader,
};
use tempfile::NamedTempFile;

use super::StoreError;

/// A table on its way to its file, which appears when it is complete.
pub(super) struct TableFile {
    path: PathBuf,
    file: NamedTempFile,
    writer: BatchedWriter<File>,
}

impl TableFile {
    /// With the columns of `empty`.
    pub(super) fn new(
        path: &Path,
        empty: &DataFrame,
        metadata: &[(String, String)],
    ) -> Result<Self, StoreError> {
        let file = beside(path)?;
        let handle = file
            .as_file()
            .try_clone()
            .map_err(StoreError::io("write", path))?;
        // Most cells of a column are alike and become a dictionary. Of pages this small, zstd makes files as large and
        // takes twice as long to read.
        let writer = ParquetWriter::new(handle)
            .with_compression(ParquetCompression::Snappy)
            .with_key_value_metadata(Some(KeyValueMetadata::from_static(metadata.to_vec())))
            .batched(empty.schema())?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            writer,
        })
    }

    pub(super) fn write(&mut self, rows: &DataFrame) -> Result<(), StoreError> {
        if rows.height() > 0 {
            self.writer
                .write_batch(rows)
                .map_err(|error| self.refused(error))?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<(), StoreError> {
        self.writer.finish().map_err(|error| self.refused(error))?;
        put(self.file, &self.path)
    }

    /// An error of the disk stays one.
    fn refused(&self, error: PolarsError) -> StoreError {
        match error {
            PolarsError::IO { error, .. } => {
                let source = io::Error::new(error.kind(), error.to_string());
                StoreError::io("write", &self.path)(source)
            }
            other => other.into(),
        }
    }
}

/// Rows up to which a table is read by one thread: to share out a few hundred columns takes longer than to read them.
const ROWS_OF_A_THREAD: usize = 10_000;

/// A table, or some columns of it, those that it has.
pub(super) fn read_parquet(path: &Path, columns: Option<&[&str]>) -> Result<DataFrame, StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let damaged = |error: PolarsError| StoreError::Damaged {
        path: path.to_path_buf(),
        reason: error.to_string(),
    };
    let mut reader = ParquetReader::new(file);
    let columns = match columns {
        Some(columns) => {
            let schema = reader.schema().map_err(damaged)?;
            let known = columns.iter().filter(|column| schema.contains(column));
            Some(known.map(|column| (*column).to_string()).collect())
        }
        None => None,
    };
    let parallel = match reader.num_rows().map_err(damaged)? {
        ..=ROWS_OF_A_THREAD => ParallelStrategy::None,
        _ => ParallelStrategy::Auto,
    };
    reader
        .with_columns(columns)
        .read_parallel(parallel)
        .finish()
        .map_err(damaged)
}

/// How many rows a table has, by its last bytes.
pub(super) fn rows_in(path: &Path) -> Result<usize, StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    ParquetReader::new(file)
        .num_rows()
        .map_err(|error| StoreError::Damaged {
            path: path.to_path_buf(),
            reason: error.to_string(),
        })
}

/// Replaces a file as a whole: written beside it, brought to the disk, renamed.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = beside(path)?;
    file.write_all(bytes).map_err(StoreError::io("write", path))?;
    put(file, path)
}

/// A file of another name in the folder of `path`.
fn beside(path: &Path) -> Result<NamedTempFile, StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".attn-bench-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask
    builder.tempfile_in(folder).map_err(StoreError::io("write", path))
}

/// Brings a file to the disk and gives it its name.
fn put(file: NamedTempFile, path: &Path) -> Result<(), StoreError> {
    file.as_file().sync_all().map_err(StoreError::io("write", path))?;
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
