//! The variants: the one place that names them all.

use attn_core::Variant;

/// Every variant there is. A new one is a line here.
pub static VARIANTS: &[&Variant] = &[
    &attn_mha::VARIANT,
    &attn_gqa::VARIANT,
    &attn_mqa::VARIANT,
    &attn_mla::VARIANT,
    &attn_mtla::VARIANT,
    &attn_swa::VARIANT,
    &attn_gta::VARIANT,
    &attn_gla::VARIANT,
    &attn_tpa::VARIANT,
];

/// Names of all figures.
pub fn figure_names() -> Vec<&'static str> {
    attn_figures::figures().iter().map(|figure| figure.name).collect()
}
