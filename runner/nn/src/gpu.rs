//! The GPUs of this machine, as far as this build can use them.
//!
//! A build without the feature `cuda` has the same functions: they say so. The driver obeys `CUDA_VISIBLE_DEVICES`; what it
//! hides is not here, and indices count what is left.

#[cfg(not(feature = "cuda"))]
use crate::Error;
use crate::{Dfdx, Stock};

#[cfg(feature = "cuda")]
type Device = dfdx::prelude::Cuda;
/// Stands in its place, so that what is written over [`Gpu`] is checked and tested in every build; [`open`] makes none.
#[cfg(not(feature = "cuda"))]
type Device = dfdx::prelude::Cpu;

/// The operations of a GPU: dfdx's stock ones.
pub type GpuOperations = Stock<Device>;

/// Models on a GPU. What is there stays on the thread that put it there: dfdx's CUDA device cannot be sent to another.
pub type Gpu = Dfdx<GpuOperations>;

/// A GPU, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuInfo {
    /// Its place among the visible ones.
    pub index: u32,
    /// `NVIDIA H100 80GB HBM3`, where the driver says it.
    pub name: Option<String>,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Bytes of memory, and how many are free.
    pub memory: (u64, u64),
}

/// Number of GPUs. An error where there cannot be any: a build without CUDA, no driver, no device.
#[cfg(not(feature = "cuda"))]
pub fn count() -> Result<u32, Error> {
    Err(Error::WithoutCuda)
}

/// A backend for inference on a GPU.
#[cfg(not(feature = "cuda"))]
pub fn open(_: u32) -> Result<Gpu, Error> {
    Err(Error::WithoutCuda)
}

/// What training computes with on a GPU.
#[cfg(not(feature = "cuda"))]
pub fn operations(_: u32) -> Result<GpuOperations, Error> {
    Err(Error::WithoutCuda)
}

/// Looks at a GPU.
#[cfg(not(feature = "cuda"))]
pub fn describe(_: u32) -> Result<GpuInfo, Error> {
    Err(Error::WithoutCuda)
}

/// Whether a failure of dfdx is that a GPU's memory is full.
#[cfg(not(feature = "cuda"))]
pub(crate) fn is_full(_: &dyn std::any::Any) -> bool {
    false
}

#[cfg(feature = "cuda")]
pub(crate) use cuda::is_full;
#[cfg(feature = "cuda")]
pub use cuda::{count, describe, open, operations};

#[cfg(feature = "cuda")]
mod cuda {
    use std::{any::Any, fs};

    use cudarc::{
        cublas::{result::CublasError, sys::cublasStatus_t},
        driver::{
            CudaDevice, DriverError, result,
            sys::{CUdevice_attribute, CUresult},
        },
    };
    use dfdx::tensor::CudaError;

    use super::{Device, Gpu, GpuInfo, GpuOperations};
    use crate::{Dfdx, Error, Stock, autograd::failed};

    /// Number of GPUs. An error where there cannot be any: no driver, no device.
    pub fn count() -> Result<u32, Error> {
        let refused = |DriverError(found)| Error::NoCuda(format!("{found:?}"));
        result::init().map_err(refused)?;
        let count = result::device::get_count().map_err(refused)?;
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// A backend for inference on a GPU.
    pub fn open(index: u32) -> Result<Gpu, Error> {
        operations(index).map(Dfdx::inference_over)
    }

    /// What training computes with on a GPU.
    pub fn operations(index: u32) -> Result<GpuOperations, Error> {
        let count = count()?;
        if index >= count {
            return Err(Error::NoGpu { index, count });
        }
        Device::try_build(index as usize, 0).map(Stock::over).map_err(|error| match error {
            CudaError::Driver(error) => driver(error),
            other => failed(other),
        })
    }

    /// A failure of the driver. Its own text is another call of the driver, which may fail, too.
    fn driver(error: DriverError) -> Error {
        if is_full(&error) { Error::OutOfMemory } else { Error::Device(format!("{:?}", error.0)) }
    }

    /// Looks at a GPU.
    pub fn describe(index: u32) -> Result<GpuInfo, Error> {
        let count = count()?;
        if index >= count {
            return Err(Error::NoGpu { index, count });
        }
        let device = CudaDevice::new(index as usize).map_err(driver)?;
        let attribute = |attribute| device.attribute(attribute).map_err(driver);
        let capability = (
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let (free, total) = result::mem_get_info().map_err(driver)?;
        let place = [
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)?,
        ];
        Ok(GpuInfo { index, name: name(place), capability, memory: (total as u64, free as u64) })
    }

    /// The name that the kernel's driver gives the device at a place of the PCI bus.
    fn name([domain, bus, device]: [i32; 3]) -> Option<String> {
        let path = format!("/proc/driver/nvidia/gpus/{domain:04x}:{bus:02x}:{device:02x}.0/information");
        let text = fs::read_to_string(path).ok()?;
        let model = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
        Some(model.trim().to_owned())
    }

    /// Whether a failure of dfdx is that a GPU's memory is full.
    pub(crate) fn is_full(error: &dyn Any) -> bool {
        const FULL: CUresult = CUresult::CUDA_ERROR_OUT_OF_MEMORY;
        match error.downcast_ref::<CudaError>() {
            Some(CudaError::Driver(DriverError(found))) => *found == FULL,
            Some(CudaError::Blas(CublasError(found))) => *found == cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED,
            _ => matches!(error.downcast_ref::<DriverError>(), Some(DriverError(found)) if *found == FULL),
        }
    }
}
