//! The binary `levada`: hands its arguments to the library and its verdict to the shell. Knows nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    levada_engine::main()
}
