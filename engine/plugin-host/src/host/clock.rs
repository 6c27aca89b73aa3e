//! `levada:plugin/clock`: the time of the call, not of the wall.

use wasmtime::{Result, StoreContextMut, component::LinkerInstance};

use super::GuestState;

pub(crate) fn define(clock: &mut LinkerInstance<'_, GuestState>) -> Result<()> {
    clock.func_wrap("now", |store: StoreContextMut<'_, GuestState>, (): ()| Ok((store.data().now.0,)))
}
