//! Safetensors files that nobody wrote: they are read or refused, within bounded memory.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

mod hostile;

use std::path::PathBuf;
use std::sync::LazyLock;

use attn_core::Weights;
use attn_testkit::ConformanceFile;
use candle_core::Device;
use hostile::VARIANTS;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());

/// Reads `bytes` as a conformance file and as weights; whether it is a conformance file.
fn read(name: &str, bytes: &[u8]) -> Result<bool, TestCaseError> {
    let path: PathBuf = FOLDER.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let file = hostile::bounded(
        bytes.len(),
        || ConformanceFile::read(&path, &VARIANTS).map_err(|error| error.to_string()),
        |_| 0,
    )?;
    let weights = hostile::bounded(
        bytes.len(),
        || Weights::from_safetensors(&path, "weights.", &Device::Cpu).map_err(|error| error.to_string()),
        |_| 0,
    )?;
    for error in [file.as_ref().err(), weights.as_ref().err()] {
        prop_assert!(error.is_none_or(|text| text.contains(name)));
    }
    Ok(file.is_ok())
}

/// A file of a header and the bytes behind it.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// A conformance file that is read: its header and the bytes behind it.
fn valid() -> (Value, Vec<u8>) {
    let config = json!({"d_model": 4, "n_heads": 2, "head_dim": 2, "bias": false});
    let metadata = json!({
        "format": "attn-conformance-1", "variant": "mha", "prefill": "1", "config": config.to_string(),
    });
    let mut header = json!({"__metadata__": metadata});
    let mut end = 0_usize;
    let mut add = |name: &str, shape: &[usize]| {
        let bytes = 4 * shape.iter().product::<usize>();
        header[name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [end, end + bytes]});
        end += bytes;
    };
    for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
        add(&format!("weights.{name}.weight"), &[4, 4]);
    }
    for name in ["input", "expected.parallel", "expected.incremental"] {
        add(name, &[1, 3, 4]);
    }
    (header, vec![0; end])
}

/// Numbers at which something may break.
fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0_u64..70).prop_map(|n| json!(n)),
        any::<u64>().prop_map(|n| json!(n)),
        select(vec![
            1_u64 << 20,
            (1 << 20) + 1,
            1 << 31,
            1 << 32,
            1 << 62,
            1 << 63,
            u64::MAX
        ])
        .prop_map(|n| json!(n)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|x| json!(x)),
    ]
}

fn anything() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => number(),
        1 => any::<bool>().prop_map(|b| json!(b)),
        1 => ".{0,12}".prop_map(|s| json!(s)),
        1 => vec(number(), 0..4).prop_map(|v| json!(v)),
        1 => Just(Value::Null),
        1 => Just(json!({})),
    ]
}

/// What a header may say of a tensor.
fn tensor() -> impl Strategy<Value = Value> {
    let dtype = select(vec![
        "F32", "F16", "BF16", "F64", "I64", "I32", "I16", "I8", "U8", "U16", "U32", "U64", "BOOL", "F8_E4M3",
        "F8_E5M2", "F4", "F6_E2M3", "F8_E8M0", "C64", "F128", "",
    ]);
    let shape = prop_oneof![
        3 => vec((0_u64..9).prop_map(|n| json!(n)), 0..5).prop_map(|v| json!(v)),
        1 => vec(number(), 0..5).prop_map(|v| json!(v)),
        1 => vec(Just(json!(1)), 0..300).prop_map(|v| json!(v)),
    ];
    let offsets = prop_oneof![
        3 => (0_u64..500, 0_u64..500).prop_map(|(a, b)| json!([a.min(b), a.max(b)])),
        1 => vec(number(), 0..4).prop_map(|v| json!(v)),
    ];
    (dtype, shape, offsets)
        .prop_map(|(dtype, shape, offsets)| json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}))
}

/// A change of the header's JSON: where among its places, and to what.
fn change() -> impl Strategy<Value = (Index, Value)> {
    (any::<Index>(), prop_oneof![2 => tensor(), 3 => anything()])
}

/// Every place of a value, as a pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_string());
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| places(value, &format!("{at}/{key}"), found)),
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(i, value)| places(value, &format!("{at}/{i}"), found));
        }
        _ => {}
    }
}

fn changed(mut header: Value, changes: Vec<(Index, Value)>) -> Value {
    for (at, value) in changes {
        let mut found = Vec::new();
        places(&header, "", &mut found);
        // The whole header is not replaced: what is left would be one case.
        let inner = found.get(1..).unwrap_or_default();
        if inner.is_empty() {
            continue;
        }
        if let Some(place) = header.pointer_mut(&inner[at.index(inner.len())]) {
            *place = value;
        }
    }
    header
}

/// The settings of a layer, with numbers that may break something.
fn config() -> impl Strategy<Value = (Value, &'static str)> {
    let names = [
        "d_model",
        "n_heads",
        "head_dim",
        "nope_dim",
        "n_kv_heads",
        "kv_rank",
        "rope_dim",
        "q_rank",
        "v_dim",
        "stride",
        "hyper_rank",
        "rope_theta",
        "bias",
        "norm",
    ];
    let usual = [4_u64, 2, 2, 2, 2, 4, 2, 0, 2, 2, 1, 10_000, 0, 0];
    let values = names.into_iter().zip(usual).map(|(name, usual)| {
        prop_oneof![30 => Just(Some(json!(usual))), 3 => anything().prop_map(Some), 1 => Just(None)]
            .prop_map(move |value| (name, value))
            .boxed()
    });
    (
        values.collect::<Vec<_>>(),
        select(vec!["mha", "gqa", "mqa", "mla", "mtla", "none"]),
    )
        .prop_map(|(values, variant)| {
            let given = values
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_string(), value?)));
            (Value::Object(given.collect()), variant)
        })
}

proptest! {
    #![proptest_config(hostile::cases(300))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..400)) {
        read("bytes.safetensors", &bytes)?;
    }

    #[test]
    fn any_length_before_any_header_is_read_or_refused(
        length in prop_oneof![any::<u64>(), 0_u64..300, (0_u64..64).prop_map(|n| 1 << n)],
        header in "[ {}\\[\\]:,\"a-z0-9_]{0,200}",
        data in vec(any::<u8>(), 0..100),
    ) {
        read("length.safetensors", &[&length.to_le_bytes(), header.as_bytes(), &data[..]].concat())?;
        read("header.safetensors", &file(&header, &data))?;
    }

    #[test]
    fn any_change_of_a_header_is_read_or_refused(
        changes in vec(change(), 1..4),
        cut in 0_usize..60,
        longer in 0_usize..60,
    ) {
        let (header, mut data) = valid();
        data.truncate(data.len() - cut);
        data.resize(data.len() + longer, 1);
        read("changed.safetensors", &file(&changed(header, changes).to_string(), &data))?;
    }

    #[test]
    fn any_tensors_are_read_or_refused(tensors in vec(("[a-z.]{0,12}", tensor()), 0..6), bytes in 0_usize..600) {
        let header: serde_json::Map<String, Value> = tensors.into_iter().collect();
        read("tensors.safetensors", &file(&Value::Object(header).to_string(), &vec![0; bytes]))?;
    }

    #[test]
    fn any_settings_are_read_or_refused((config, variant) in config()) {
        let (mut header, data) = valid();
        header["__metadata__"]["config"] = json!(config.to_string());
        header["__metadata__"]["variant"] = json!(variant);
        read("settings.safetensors", &file(&header.to_string(), &data))?;
    }

    #[test]
    fn any_byte_that_flips_is_read_or_refused(flips in vec((any::<Index>(), any::<u8>()), 1..6), cut in any::<Index>()) {
        let (header, data) = valid();
        let mut bytes = file(&header.to_string(), &data);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read("flipped.safetensors", &bytes)?;
        read("cut.safetensors", &bytes[..cut.index(bytes.len())])?;
    }
}

#[test]
fn the_file_to_begin_from_is_read() {
    let (header, data) = valid();
    let is_read = read("valid.safetensors", &file(&header.to_string(), &data));
    assert!(is_read.unwrap());
}

#[test]
fn sizes_beyond_any_layer_are_refused() {
    // A base is no size.
    let (mut header, data) = valid();
    let config = json!({"d_model": 4, "n_heads": 2, "head_dim": 2, "bias": false, "rope_theta": 10_000_000});
    header["__metadata__"]["config"] = json!(config.to_string());
    assert!(read("theta.safetensors", &file(&header.to_string(), &data)).unwrap());
    for key in ["d_model", "n_heads", "head_dim"] {
        let (mut header, data) = valid();
        let mut config = json!({"d_model": 4, "n_heads": 2, "head_dim": 2, "bias": false});
        config[key] = json!(1_u64 << 63);
        header["__metadata__"]["config"] = json!(config.to_string());
        let path = FOLDER.path().join("large.safetensors");
        std::fs::write(&path, file(&header.to_string(), &data)).unwrap();
        let error = ConformanceFile::read(&path, &VARIANTS).unwrap_err().to_string();
        let expected = format!("its setting `{key}` is 9223372036854775808, expected at most 1048576");
        assert!(error.contains(&expected), "{error}");
    }
}
