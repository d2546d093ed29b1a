//! The stand-in for a driver itself: what it does with streams, graphs and memory, and what it refuses.
//!
//! A process has its libraries from its start, so every test runs once more in a process of its own that has the
//! stand-in's.
#![cfg(all(feature = "cuda", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

mod common;
mod standin;

use candle_core::cuda::cudarc::driver::sys::{
    CUgraphInstantiate_flags as Flags, CUresult, CUstreamCaptureMode as Mode,
};
use candle_core::cuda::cudarc::driver::{CudaGraph, DriverError};
use candle_core::{CudaDevice, DType, Device, Tensor};

/// Whether this is the process with the stand-in; starts it if not.
fn is_inside(test: &str) -> bool {
    const INSIDE: &str = "ATTN_TEST_INSIDE_STANDIN";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if let Some(variables) = standin::variables() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .envs(variables)
            .env(INSIDE, "1")
            .env_remove("CUDA_VISIBLE_DEVICES")
            .args([test, "--exact", "--nocapture"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    false
}

/// A device whose tensors carry no events: all is on one stream.
fn device() -> (Device, CudaDevice) {
    let cuda = CudaDevice::new_with_stream(0).unwrap();
    // SAFETY: there is one stream.
    unsafe { cuda.disable_event_tracking() };
    (Device::Cuda(cuda.clone()), cuda)
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// What is asked for while capturing, as a graph.
fn captured(cuda: &CudaDevice, flags: Flags, work: impl FnOnce()) -> Result<CudaGraph, DriverError> {
    let stream = cuda.cuda_stream();
    stream
        .begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        .unwrap();
    work();
    // cudarc would tell what went wrong when a tensor was dropped, and not end the capture.
    let dropped = stream.context().check_err();
    let ended = stream.end_capture(flags).map(Option::unwrap);
    dropped.and(ended)
}

fn is(error: CUresult) -> impl Fn(DriverError) -> bool {
    move |DriverError(found)| found == error
}

#[test]
fn a_graph_computes_anew_at_each_launch() {
    if !is_inside("a_graph_computes_anew_at_each_launch") {
        return;
    }
    let (device, cuda) = device();
    let x = Tensor::new(&[1.0_f32, 2.0, 3.0], &device).unwrap();
    let out = Tensor::zeros(3, DType::F32, &device).unwrap();
    let double = || {
        // The product's memory is the graph's own, taken and given back at each launch.
        let y = (&x * 2.0).unwrap();
        out.slice_set(&y, 0, 0).unwrap();
    };
    double(); // loads kernels, which cannot be done while capturing
    let graph = captured(&cuda, Flags(0), double).unwrap();
    out.zero_set().unwrap();
    assert_eq!(numbers(&out), [0.0; 3], "capturing does nothing");
    graph.launch().unwrap();
    assert_eq!(numbers(&out), [2.0, 4.0, 6.0]);
    x.slice_set(&Tensor::new(&[5.0_f32, 6.0, 7.0], &device).unwrap(), 0, 0)
        .unwrap();
    graph.launch().unwrap();
    assert_eq!(numbers(&out), [10.0, 12.0, 14.0]);
}

#[test]
fn memory_that_a_graph_keeps_is_freed_before_the_next_launch() {
    if !is_inside("memory_that_a_graph_keeps_is_freed_before_the_next_launch") {
        return;
    }
    let (device, cuda) = device();
    let x = Tensor::new(&[1.0_f32, 2.0], &device).unwrap();
    for (flags, launches_again) in [
        (Flags(0), false),
        (Flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH, true),
    ] {
        let mut kept = Some((&x * 3.0).unwrap());
        let graph = captured(&cuda, flags, || {
            // What was allocated before cannot be freed while capturing.
            std::mem::forget(kept.replace((&x * 3.0).unwrap()));
        })
        .unwrap();
        graph.launch().unwrap();
        assert_eq!(numbers(kept.as_ref().unwrap()), [3.0, 6.0]);
        assert_eq!(graph.launch().is_ok(), launches_again);
        assert_eq!(numbers(kept.as_ref().unwrap()), [3.0, 6.0]);
    }
}

#[test]
fn what_waits_or_reads_the_host_ends_a_capture() {
    if !is_inside("what_waits_or_reads_the_host_ends_a_capture") {
        return;
    }
    let (device, cuda) = device();
    let stream = cuda.cuda_stream();
    let x = Tensor::new(&[1.0_f32, 2.0], &device).unwrap();
    let invalidated = is(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    let refused = captured(&cuda, Flags(0), || {
        let error = stream.synchronize().unwrap_err();
        assert!(is(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)(error));
        assert!((&x * 2.0).is_err(), "it is over");
    });
    assert!(refused.is_err_and(&invalidated));
    // As candle sends shapes of what is not contiguous.
    let refused = captured(&cuda, Flags(0), || {
        assert!(Tensor::new(&[1.0_f32], &device).is_err())
    });
    assert!(refused.is_err_and(&invalidated));
    assert_eq!(numbers(&x), [1.0, 2.0], "the stream goes on without it");
}

#[test]
fn a_graph_that_outlives_its_operands_breaks_the_gpu() {
    if !is_inside("a_graph_that_outlives_its_operands_breaks_the_gpu") {
        return;
    }
    let (device, cuda) = device();
    let x = Tensor::new(&[1.0_f32, 2.0], &device).unwrap();
    let out = (&x * 2.0).unwrap();
    let copy = || out.slice_set(&x, 0, 0).unwrap();
    copy(); // loads its kernel
    let graph = captured(&cuda, Flags(0), copy).unwrap();
    drop(x);
    graph.launch().unwrap(); // of what happens on a GPU, who waits is told
    let error = cuda.cuda_stream().synchronize().unwrap_err();
    assert!(is(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS)(error));
    assert!(
        Tensor::new(&[1.0_f32], &device).is_err(),
        "and nothing works any more"
    );
}

#[test]
fn memory_of_nobody_is_not_written() {
    if !is_inside("memory_of_nobody_is_not_written") {
        return;
    }
    let (device, cuda) = device();
    let stream = cuda.cuda_stream();
    // SAFETY: it is not read.
    let memory = unsafe { stream.alloc::<f32>(4) }.unwrap();
    assert!(
        stream.clone_dtoh(&memory).unwrap().iter().all(|x| x.is_nan()),
        "it begins spoilt"
    );
    let total = stream.context().total_mem().unwrap();
    // SAFETY: the same.
    let error = unsafe { stream.alloc::<u8>(total) }.unwrap_err();
    assert!(is(CUresult::CUDA_ERROR_OUT_OF_MEMORY)(error));
    assert!(
        Tensor::zeros(4, DType::F32, &device).is_ok(),
        "which breaks nothing"
    );
}
