//! The operations as methods of each type of element, so that all of them are compiled here. As functions over any type
//! they would be compiled once more, for every type and level, in each crate and each test that calls them.

use half::{bf16, f16};

use crate::attend::{self, Attend, Backward, Gradients};
use crate::decode::{self, Decode};
use crate::error::Mismatch;
use crate::latents::{self, Latents, LatentsOut};
use crate::level::Level;
use crate::project::{self, Output, Project};

type Done = Result<(), Mismatch>;

/// What the functions of the same names call.
pub trait Operations: Sized {
    fn decode(input: &Decode<'_, Self>, level: Level, out: &mut [Self]) -> Done;
    fn decode_part(input: &Decode<'_, Self>, level: Level, out: &mut [f32], logs: &mut [f32]) -> Done;
    fn attend(input: &Attend<'_, Self>, level: Level, out: &mut [Self], lse: Option<&mut [f32]>) -> Done;
    fn attend_backward(input: &Backward<'_, Self>, level: Level, out: &mut Gradients<'_, Self>) -> Done;
    fn project(input: &Project<'_, Self>, level: Level, out: &mut Output<'_, Self>) -> Done;
    fn latents(input: &Latents<'_, Self>, level: Level, out: &mut LatentsOut<'_, Self>) -> Done;
}

macro_rules! compile {
    ($($element:ty),+) => {$(
        impl Operations for $element {
            fn decode(input: &Decode<'_, Self>, level: Level, out: &mut [Self]) -> Done {
                decode::run(input, level, out, None)
            }

            fn decode_part(input: &Decode<'_, Self>, level: Level, out: &mut [f32], logs: &mut [f32]) -> Done {
                decode::run_part(input, level, out, logs)
            }

            fn attend(input: &Attend<'_, Self>, level: Level, out: &mut [Self], lse: Option<&mut [f32]>) -> Done {
                attend::run(input, level, out, lse)
            }

            fn attend_backward(input: &Backward<'_, Self>, level: Level, out: &mut Gradients<'_, Self>) -> Done {
                attend::backward::run(input, level, out)
            }

            fn project(input: &Project<'_, Self>, level: Level, out: &mut Output<'_, Self>) -> Done {
                project::run(input, level, out)
            }

            fn latents(input: &Latents<'_, Self>, level: Level, out: &mut LatentsOut<'_, Self>) -> Done {
                latents::run(input, level, out)
            }
        }
    )+};
}

compile!(f32, bf16, f16);
