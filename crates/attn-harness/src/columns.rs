//! One declaration for each stored table: a struct whose fields are the columns, their types the stored
//! types, and their doc sentences what `list metrics` prints.

use polars::prelude::{Column as PolarsColumn, DataFrame, DataType, NamedFrom, Series};
use serde::Serialize;

use crate::store::StoreError;

/// One column of a stored table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Name, with its unit.
    pub name: &'static str,
    /// What a cell holds.
    pub kind: ColumnKind,
    /// Whether a cell may be empty. Columns that may not are what a file must have to be read.
    pub nullable: bool,
    /// One sentence: the quantity.
    pub doc: &'static str,
}

/// What the cells of a column hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// A word, a sentence or JSON.
    Text,
    /// A whole number.
    Count,
    /// A real number.
    Real,
    /// A yes or no.
    Flag,
}

impl ColumnKind {
    /// The name in listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Count => "count",
            Self::Real => "real",
            Self::Flag => "flag",
        }
    }
}

/// What polars stores: the four types behind every cell.
pub(crate) trait Stored: Sized + Clone {
    const KIND: ColumnKind;

    /// The whole column; its type is the same where every cell is empty.
    fn write(name: &str, values: Vec<Option<Self>>) -> Series;

    /// The cells of a column of any width that holds the kind, `None` where it holds another.
    fn read(column: &PolarsColumn) -> Option<Vec<Option<Self>>>;
}

macro_rules! stored {
    ($($type:ty: $kind:ident, $dtype:ident, $reader:ident, $accepts:expr;)+) => {$(
        impl Stored for $type {
            const KIND: ColumnKind = ColumnKind::$kind;

            fn write(name: &str, values: Vec<Option<Self>>) -> Series {
                Series::new(name.into(), values)
            }

            fn read(column: &PolarsColumn) -> Option<Vec<Option<Self>>> {
                let accepts: fn(&DataType) -> bool = $accepts;
                // A column of nulls alone may have lost its type on its way through another tool.
                if !accepts(column.dtype()) && column.null_count() < column.len() {
                    return None;
                }
                let cast = column.strict_cast(&DataType::$dtype).ok()?;
                Some(cast.$reader().ok()?.iter().map(|cell| cell.map(Into::into)).collect())
            }
        }
    )+};
}

stored! {
    u64: Count, UInt64, u64, DataType::is_primitive_numeric;
    f64: Real, Float64, f64, DataType::is_primitive_numeric;
    bool: Flag, Boolean, bool, DataType::is_bool;
    String: Text, String, str, |dtype| matches!(dtype, DataType::String);
}

/// A field of a row: how it becomes a stored cell and back.
pub(crate) trait Cell: Sized {
    type Stored: Stored;
    const NULLABLE: bool;

    fn to_stored(&self) -> Option<Self::Stored>;

    /// `None` where the cell holds what the field cannot.
    fn from_stored(cell: Option<Self::Stored>) -> Option<Self>;
}

macro_rules! cells {
    ($($type:ty),+) => {$(
        impl Cell for $type {
            type Stored = Self;
            const NULLABLE: bool = false;

            fn to_stored(&self) -> Option<Self> {
                Some(self.clone())
            }

            fn from_stored(cell: Option<Self>) -> Option<Self> {
                cell
            }
        }
    )+};
}

cells!(u64, f64, bool, String);

impl<C: Cell> Cell for Option<C> {
    type Stored = C::Stored;
    const NULLABLE: bool = true;

    fn to_stored(&self) -> Option<C::Stored> {
        self.as_ref().and_then(C::to_stored)
    }

    fn from_stored(cell: Option<C::Stored>) -> Option<Self> {
        match cell {
            None => Some(None),
            cell => C::from_stored(cell).map(Some),
        }
    }
}

/// Declares a stored table. Every field needs exactly one line of documentation.
macro_rules! table {
    (
        $(#[$attribute:meta])*
        pub struct $Name:ident { $(#[doc = $doc:literal] pub $field:ident: $Type:ty,)+ }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $Name { $(#[doc = $doc] pub $field: $Type,)+ }

        impl $Name {
            /// The columns in their stored order.
            pub fn columns() -> &'static [$crate::columns::Column] {
                use $crate::columns::{Cell, Column, Stored};
                const COLUMNS: &[Column] = &[$(Column {
                    name: stringify!($field),
                    kind: <<$Type as Cell>::Stored as Stored>::KIND,
                    nullable: <$Type as Cell>::NULLABLE,
                    doc: $doc.trim_ascii(),
                }),+];
                COLUMNS
            }

            /// The rows as a table: the same columns in the same order with the same types, whatever is empty.
            ///
            /// # Errors
            /// [`StoreError::Table`](crate::store::StoreError::Table) where polars refuses.
            pub fn to_frame(rows: &[Self]) -> Result<polars::prelude::DataFrame, $crate::store::StoreError> {
                use $crate::columns::{Cell, write_column};
                let columns = vec![$(
                    write_column(stringify!($field), rows.iter().map(|row| row.$field.to_stored()).collect())
                ),+];
                polars::prelude::DataFrame::new(rows.len(), columns).map_err(Into::into)
            }

            /// The rows of a table. Columns it has beyond ours are ignored; nullable ones may be missing.
            ///
            /// # Errors
            /// [`StoreError::Column`](crate::store::StoreError::Column) where a column is missing or holds
            /// what its name does not promise.
            pub fn from_frame(frame: &polars::prelude::DataFrame) -> Result<Vec<Self>, $crate::store::StoreError> {
                let mut rows = vec![Self::default(); frame.height()];
                $(
                    let cells = $crate::columns::read_column::<$Type>(frame, stringify!($field))?;
                    for (row, cell) in rows.iter_mut().zip(cells) {
                        row.$field = cell;
                    }
                )+
                Ok(rows)
            }
        }
    };
}
pub(crate) use table;

/// A column of the stored kind.
pub(crate) fn write_column<S: Stored>(name: &str, cells: Vec<Option<S>>) -> PolarsColumn {
    S::write(name, cells).into()
}

/// The cells of a column; none where a nullable column is missing.
pub(crate) fn read_column<C: Cell>(frame: &DataFrame, name: &'static str) -> Result<Vec<C>, StoreError> {
    let wrong = |got: String| StoreError::Column {
        column: name,
        expected: C::Stored::KIND.name(),
        got,
    };
    let Ok(column) = frame.column(name) else {
        return if C::NULLABLE {
            Ok(Vec::new())
        } else {
            Err(wrong("no such column".to_string()))
        };
    };
    let cells = C::Stored::read(column).ok_or_else(|| wrong(column.dtype().to_string()))?;
    let field =
        |(row, cell)| C::from_stored(cell).ok_or_else(|| wrong(format!("another word or null in row {row}")));
    cells.into_iter().enumerate().map(field).collect()
}
