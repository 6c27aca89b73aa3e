//! What the commands of `levada` share: how they print, how they fail, how they are stopped, how they connect, and the
//! flags that several of them have.
//!
//! It must not know any command.

pub mod choices;
pub mod output;
pub mod values;

mod connect;
mod failure;
mod interrupt;

pub use connect::{Reach, TokenVariables};
pub use failure::{Failure, FailureCode, FailureKind};
pub use interrupt::interrupted;
pub use output::Output;
