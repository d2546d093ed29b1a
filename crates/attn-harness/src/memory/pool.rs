//! The memory pool of a GPU, which candle's tensors come from, and the memory of graphs, which does not.
//!
//! Not yet run on a GPU.

use candle_core::CudaDevice;
use cudarc::driver::sys::CUgraphMem_attribute as GraphAttribute;
use cudarc::driver::sys::CUmemPool_attribute as PoolAttribute;
use cudarc::driver::{DriverError, result, sys};

use super::Kept;

/// The pool of a device.
pub(super) struct Pool {
    device: sys::CUdevice,
    pool: sys::CUmemoryPool,
}

impl Pool {
    pub(super) fn of(device: &CudaDevice) -> Result<Self, DriverError> {
        let stream = device.cuda_stream();
        let context = stream.context();
        context.bind_to_thread()?;
        let device = result::device::get(context.ordinal() as i32)?;
        // SAFETY: the driver gave out `device` just now.
        let pool = unsafe { result::device::get_default_mem_pool(device) }?;
        Ok(Self { device, pool })
    }

    fn read(&self, which: PoolAttribute) -> Result<u64, DriverError> {
        let mut bytes = 0_u64;
        // SAFETY: a device's default pool lives as long as the driver, and these attributes are 64 bits.
        unsafe { result::mem_pool::get_attribute(self.pool, which, (&raw mut bytes).cast()) }?;
        Ok(bytes)
    }

    fn reset(&self, which: PoolAttribute) -> Result<(), DriverError> {
        let mut zero = 0_u64;
        // SAFETY: as in `read`. Of high-water marks zero is what may be written.
        unsafe { result::mem_pool::set_attribute(self.pool, which, (&raw mut zero).cast()) }
    }

    fn read_of_graphs(&self, which: GraphAttribute) -> Result<u64, DriverError> {
        let mut bytes = 0_u64;
        // SAFETY: the driver gave out the device, and these attributes are 64 bits.
        unsafe { sys::cuDeviceGetGraphMemAttribute(self.device, which, (&raw mut bytes).cast()) }.result()?;
        Ok(bytes)
    }

    fn reset_of_graphs(&self, which: GraphAttribute) -> Result<(), DriverError> {
        let mut zero = 0_u64;
        // SAFETY: as in `read_of_graphs`. Of high-water marks zero is what may be written.
        unsafe { sys::cuDeviceSetGraphMemAttribute(self.device, which, (&raw mut zero).cast()) }.result()
    }

    /// Bytes handed out and not returned.
    pub(super) fn live_bytes(&self) -> Result<u64, DriverError> {
        self.read(PoolAttribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)
    }

    /// Most of them at once since the last reset.
    pub(super) fn peak_bytes(&self) -> Result<u64, DriverError> {
        self.read(PoolAttribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)
    }

    pub(super) fn reset_peak(&self) -> Result<(), DriverError> {
        self.reset(PoolAttribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)
    }

    pub(super) fn kept(&self) -> Kept {
        Kept {
            reserved_peak_bytes: self.read(PoolAttribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH).ok(),
            graph_peak_bytes: self
                .read_of_graphs(GraphAttribute::CU_GRAPH_MEM_ATTR_USED_MEM_HIGH)
                .ok(),
            graph_reserved_peak_bytes: self
                .read_of_graphs(GraphAttribute::CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH)
                .ok(),
        }
    }

    pub(super) fn reset_kept(&self) -> Result<(), DriverError> {
        self.reset(PoolAttribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)?;
        self.reset_of_graphs(GraphAttribute::CU_GRAPH_MEM_ATTR_USED_MEM_HIGH)?;
        self.reset_of_graphs(GraphAttribute::CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH)
    }
}
