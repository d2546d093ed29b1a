//! Where the sequences of a cache end, on a GPU.

use std::sync::Arc;

use attn_kernels::cuda::Memory;
use candle_core::Device;
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaStream};

use super::gpu::written;
use super::{Asked, Refusal};
use crate::error::{Error, Result};

/// The positions of sequences' newest tokens, which kernels read and count, so that steps need nothing from the host.
#[derive(Debug, Default)]
pub(crate) struct Ends(Option<Sent>);

#[derive(Debug)]
struct Sent {
    /// `[B]`, -1 for a sequence without tokens.
    newest: CudaSlice<i32>,
    /// The lengths that it will stand for once all that is queued was done.
    lens: Vec<usize>,
}

impl Clone for Ends {
    /// Of its own, sent when it is first asked for.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Ends {
    /// `[B]` i32, made to stand for `lens` where it does not. Its address stays while the number of sequences does.
    pub(super) fn at(&mut self, stream: &Arc<CudaStream>, lens: &[usize]) -> Asked<Memory> {
        let Self(sent) = self;
        if sent.as_ref().is_none_or(|sent| sent.lens != lens) {
            let newest = lens
                .iter()
                .map(|&len| i32::try_from(len).map(|len| len - 1).map_err(Refusal::once))
                .collect::<Asked<Vec<i32>>>()?;
            match sent {
                Some(sent) if sent.lens.len() == lens.len() => {
                    stream.memcpy_htod(&newest, &mut sent.newest)?;
                    sent.lens = lens.to_vec();
                }
                _ => {
                    *sent = Some(Sent {
                        newest: stream.clone_htod(&newest)?,
                        lens: lens.to_vec(),
                    });
                }
            }
        }
        let sent = sent.as_mut().ok_or("its lengths were not sent")?;
        Ok(written(&mut sent.newest, stream).0)
    }

    /// What is on the device.
    pub(super) fn newest(&self) -> Asked<&CudaSlice<i32>> {
        Ok(&self.0.as_ref().ok_or("its lengths were not sent")?.newest)
    }

    /// Makes it stand for `lens` on a GPU.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with what the driver says.
    pub(crate) fn send(&mut self, device: &Device, lens: &[usize]) -> Result<()> {
        let Device::Cuda(device) = device else {
            return Ok(());
        };
        let sent = self.at(&device.cuda_stream(), lens);
        sent.map(|_| ()).map_err(|refusal| Error::Unsupported {
            what: "lengths on this GPU".to_string(),
            remedy: refusal.reason,
        })
    }

    /// Notes that it stands for other lengths: a kernel counted, or what should have counted was not done.
    pub(crate) fn stand_for(&mut self, lens: &[usize]) {
        if let Some(sent) = &mut self.0 {
            sent.lens = lens.to_vec();
        }
    }

    /// Counts a token of every sequence, as a kernel did.
    pub(super) fn count(&mut self) {
        if let Some(sent) = &mut self.0 {
            for len in &mut sent.lens {
                *len += 1;
            }
        }
    }
}
