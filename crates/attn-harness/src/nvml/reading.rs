//! One look at all counters of a GPU.

/// A counter's value, or why there is none.
pub type Counter<T> = Result<T, String>;

/// What lowers the clocks of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Someone set the clocks.
    ApplicationClocks,
    /// The power limit.
    PowerCap,
    /// Heat, power or the brake of the machine, by the hardware.
    HardwareSlowdown,
    /// Another GPU of its group has lower ones.
    SyncBoost,
    /// Heat, by the driver.
    Thermal,
    /// Heat, by the hardware.
    HardwareThermal,
    /// The machine's power supply asks for it.
    PowerBrake,
    /// The display's clocks hold.
    DisplayClocks,
}

impl Reason {
    const ALL: [Self; 8] = [
        Self::ApplicationClocks,
        Self::PowerCap,
        Self::HardwareSlowdown,
        Self::SyncBoost,
        Self::Thermal,
        Self::HardwareThermal,
        Self::PowerBrake,
        Self::DisplayClocks,
    ];

    /// The name in rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::ApplicationClocks => "application_clocks",
            Self::PowerCap => "power_cap",
            Self::HardwareSlowdown => "hardware_slowdown",
            Self::SyncBoost => "sync_boost",
            Self::Thermal => "thermal",
            Self::HardwareThermal => "hardware_thermal",
            Self::PowerBrake => "power_brake",
            Self::DisplayClocks => "display_clocks",
        }
    }

    /// Whether a reason of this name is a fault of a measurement. Clocks that someone set stay what they are, and are
    /// the better for comparing; all the others come and go with heat, power and what else the machine does.
    pub fn weakens(name: &str) -> bool {
        let reason = Self::ALL.into_iter().find(|reason| reason.name() == name);
        !matches!(reason, Some(Self::ApplicationClocks | Self::DisplayClocks))
    }
}

/// All counters of a GPU at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Memory in use, by anyone, in bytes.
    pub used_bytes: Counter<u64>,
    /// Power drawn, in watts.
    pub power_w: Counter<f64>,
    /// Energy since the driver was loaded, in joules.
    pub energy_j: Counter<f64>,
    /// Clock of the multiprocessors, in MHz.
    pub sm_mhz: Counter<u32>,
    /// Clock of the memory, in MHz.
    pub memory_mhz: Counter<u32>,
    /// Temperature of the GPU, in degrees Celsius.
    pub temperature_c: Counter<u32>,
    /// What lowers the clocks.
    pub throttle: Counter<Vec<Reason>>,
    /// Processes with work on the GPU and the bytes they hold, where the driver says.
    pub processes: Counter<Vec<(u32, Option<u64>)>>,
}
