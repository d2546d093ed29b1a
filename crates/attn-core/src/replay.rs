//! Work that is done again and again, each time launched anew or, on a GPU, as one CUDA graph that was recorded once.
//!
//! A decode step of one layer is some ten launches of a few microseconds each: launched one by one, it takes as long as
//! the host needs to launch them (vLLM PR 37115, tritonbench 491), and not as long as the GPU needs to do them.
//!
//! ```
//! use attn_core::Replay;
//! use candle_core::{Device, Tensor};
//!
//! let double = Replay::new(Tensor::new(&[1_f32, 2.0], &Device::Cpu)?, |x| Ok((x * 2.0)?));
//! assert!(!double.is_recorded()); // there are graphs on GPUs alone
//! assert_eq!(double.run()?.to_vec1::<f32>()?, [2.0, 4.0]);
//! # Ok::<(), attn_core::Error>(())
//! ```

use candle_core::{Device, Tensor};

use crate::attention::Attention;
use crate::cache::Cache;
use crate::error::Result;
use crate::ops::cuda::Graph;

/// A layer with its cache, and the graph of a decode step once one was recorded.
///
/// Whoever has the graph must keep what it was recorded of, which is why this owns both.
///
/// ```
/// use attn_core::grouped::GroupedConfig;
/// use attn_core::{Build, Capacity, Entry, LayerConfig, ModelDims, Params, Path, Stepper, Values, Weights, random_tensor};
/// use candle_core::{DType, Device};
///
/// let dims = ModelDims { d_model: 16, n_heads: 2, head_dim: 8 };
/// let config = GroupedConfig::new(&dims, Entry::new(1, 8, Values::Own(8)), &Params::default())?;
/// let weights = Weights::seeded(&config.weight_specs(), 42)?;
/// let layer = config.build(&weights, &Build::cpu(Path::Fused, DType::F32))?;
/// let mut cache = layer.new_cache(1, Capacity::Exact(8))?;
/// layer.fill(&mut cache, 4, 42)?;
///
/// let mut stepper = Stepper::new(layer, cache);
/// let x = random_tensor(&[1, 1, 16], 7, 0, DType::F32, &Device::Cpu)?;
/// assert!(stepper.record(&x).is_err() && !stepper.replay()?); // on the processor steps are launched
/// assert_eq!(stepper.decode(&x)?.dims(), [1, 1, 16]);
/// stepper.rewind(4)?;
/// assert_eq!(stepper.cache().lens(), [4]);
/// # Ok::<(), attn_core::Error>(())
/// ```
pub struct Stepper {
    graph: Option<Recording>,
    layer: Box<dyn Attention>,
    cache: Cache,
}

struct Recording {
    graph: Graph,
    /// `[B, 1, M]`: the token that the step takes.
    x: Tensor,
}

impl std::fmt::Debug for Stepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stepper")
            .field("lens", &self.cache.lens())
            .field("is_recorded", &self.is_recorded())
            .finish()
    }
}

impl Stepper {
    /// Steps of a layer over a cache of its own making.
    pub fn new(layer: Box<dyn Attention>, cache: Cache) -> Self {
        Self {
            graph: None,
            layer,
            cache,
        }
    }

    /// The layer.
    pub fn layer(&self) -> &dyn Attention {
        self.layer.as_ref()
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Whether steps are replayed.
    pub fn is_recorded(&self) -> bool {
        self.graph.is_some()
    }

    /// Takes every sequence back to `tokens` ([`Attention::rewind`]).
    ///
    /// # Errors
    /// [`crate::Error::Rewind`].
    pub fn rewind(&mut self, tokens: usize) -> Result<()> {
        self.layer.rewind(&mut self.cache, tokens)?;
        match &self.graph {
            // Now, and not when the clock runs.
            Some(_) => self.cache.send_lens(),
            None => Ok(()),
        }
    }

    /// Records a step, for the lengths of now and all that fit the cache; [`replay`](Self::replay) then does it with the
    /// token `x` `[B, 1, M]`. The cache is as it was.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] off GPUs, and where the step is composed of candle's operations;
    /// [`crate::Error::Rewind`] where sequences differ in length.
    pub fn record(&mut self, x: &Tensor) -> Result<()> {
        self.graph = None;
        let x = x.copy()?;
        let len = self.cache.lens().iter().max().copied().unwrap_or(0);
        self.cache.mark()?;
        let device = self.layer.build().device.clone();
        let layer = self.layer.as_ref();
        let lens = self.cache.lens().to_vec();
        // SAFETY: the graph's launches read the layer's weights, the cache and `x`. The first two are owned by this, which
        // gives nobody the means to replace them: layers do not change, and rewinding writes a cache where it is. `x` is
        // kept beside the graph.
        let graph = unsafe {
            Graph::record(
                &device,
                &mut self.cache,
                |cache| layer.decode(&x, cache),
                |cache| {
                    layer.rewind(cache, len)?;
                    cache.send_lens()
                },
                |cache| cache.uncount(&lens),
            )
        }?;
        self.graph = Some(Recording { graph, x });
        Ok(())
    }

    /// A step with the token `x` `[B, 1, M]`: `[B, 1, M]`. One that is replayed is copied out of the graph's memory.
    ///
    /// # Errors
    /// As [`Attention::decode`].
    pub fn decode(&mut self, x: &Tensor) -> Result<Tensor> {
        if let Some(recording) = &self.graph {
            recording.x.slice_set(&x.contiguous()?, 0, 0)?;
        }
        if self.replay()?
            && let Some(output) = self.graph.as_ref().and_then(|recording| recording.graph.output())
        {
            return Ok(output.copy()?);
        }
        self.layer.decode(x, &mut self.cache)
    }

    /// A step with the token of the last one, by the graph; nothing is copied in or out. What the clock stands around.
    /// False, and nothing done, where there is none: a cache without room for the token grows, and the graph is of the
    /// old one.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] with what the driver says.
    pub fn replay(&mut self) -> Result<bool> {
        let Some(recording) = &self.graph else {
            return Ok(false);
        };
        if !self.cache.has_room(1) {
            self.graph = None;
            return Ok(false);
        }
        self.cache.send_lens()?;
        recording.graph.launch()?;
        self.cache.count_replayed();
        Ok(true)
    }
}

/// Work over operands of its own, and its graph once one was recorded.
///
/// ```
/// use attn_core::Replay;
/// use candle_core::{Device, Tensor};
///
/// let x = Tensor::new(&[3_f32], &Device::Cpu)?;
/// let mut square = Replay::new(x, |x| Ok(x.sqr()?));
/// assert!(square.record(&Device::Cpu).is_err()); // off GPUs there is no graph, and `run` does the work
/// assert!(!square.replay()?);
/// assert_eq!(square.run()?.to_vec1::<f32>()?, [9.0]);
/// assert_eq!(square.operands().dims(), [1]);
/// # Ok::<(), attn_core::Error>(())
/// ```
pub struct Replay<T> {
    graph: Option<Graph>,
    operands: T,
    work: fn(&T) -> Result<Tensor>,
}

impl<T: std::fmt::Debug> std::fmt::Debug for Replay<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay")
            .field("operands", &self.operands)
            .field("is_recorded", &self.graph.is_some())
            .finish()
    }
}

impl<T: Send> Replay<T> {
    /// `work` over operands, which it reads and does not change. It has no others: a function keeps nothing.
    pub fn new(operands: T, work: fn(&T) -> Result<Tensor>) -> Self {
        Self {
            graph: None,
            operands,
            work,
        }
    }

    /// The operands.
    pub fn operands(&self) -> &T {
        &self.operands
    }

    /// Whether the work is replayed.
    pub fn is_recorded(&self) -> bool {
        self.graph.is_some()
    }

    /// Records the work, whose operands are on `device`.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] off GPUs, and where the work is composed of candle's operations.
    pub fn record(&mut self, device: &Device) -> Result<()> {
        self.graph = None;
        let work = self.work;
        // SAFETY: the work has no memory but its operands', and what lives as long as the process; the operands are owned
        // by this, which gives nobody the means to replace them.
        let graph = unsafe {
            Graph::record(
                device,
                &mut self.operands,
                |operands| work(operands),
                |_| Ok(()),
                |_| (),
            )
        }?;
        self.graph = Some(graph);
        Ok(())
    }

    /// The work, launched anew where it was not recorded; then its output is copied out of the graph's memory.
    ///
    /// # Errors
    /// Those of the work.
    pub fn run(&self) -> Result<Tensor> {
        if self.replay()?
            && let Some(output) = self.graph.as_ref().and_then(Graph::output)
        {
            return Ok(output.copy()?);
        }
        (self.work)(&self.operands)
    }

    /// The work by the graph, nothing copied. What the clock stands around. False, and nothing done, where none was
    /// recorded.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] with what the driver says.
    pub fn replay(&self) -> Result<bool> {
        let Some(graph) = &self.graph else {
            return Ok(false);
        };
        graph.launch()?;
        Ok(true)
    }
}
