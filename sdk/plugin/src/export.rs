//! From the generated interface to a [`Plugin`](crate::Plugin): one instance of it per component instance.

/// Makes a [`Plugin`](crate::Plugin) the crate's exported component. Once per crate; natively it does nothing.
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Component;

            ::std::thread_local! {
                static PLUGIN: ::std::cell::RefCell<::std::option::Option<$plugin>> =
                    const { ::std::cell::RefCell::new(::std::option::Option::None) };
            }

            impl $crate::bindings::exports::levada::plugin::batch::Guest for Component {
                fn init(
                    setup: $crate::bindings::exports::levada::plugin::batch::Setup,
                ) -> ::std::result::Result<
                    $crate::bindings::exports::levada::plugin::batch::Interest,
                    ::std::string::String,
                > {
                    $crate::exported::init(&PLUGIN, setup)
                }

                fn process(
                    events: ::std::vec::Vec<u8>,
                ) -> ::std::result::Result<
                    ::std::vec::Vec<u8>,
                    $crate::bindings::exports::levada::plugin::batch::Failure,
                > {
                    $crate::exported::process(&PLUGIN, &events)
                }
            }

    $crate::bindings::export_batch_plugin!(Component with_types_in $crate::bindings);
        };
    };
}

/// What the exported functions do; for [`export!`](crate::export!) alone.
pub mod exported {
    use std::{cell::RefCell, thread::LocalKey};

    use crate::{
        Failure, Plugin, Setup, answer_runs,
        bindings::{
            exports::levada::plugin::batch::{Failure as WireFailure, Interest, Setup as WireSetup},
            levada::plugin::types::HeaderInterest,
        },
        log_error,
    };

    type Slot<P> = LocalKey<RefCell<Option<P>>>;

    /// Makes the plugin and keeps it.
    pub fn init<P: Plugin>(slot: &'static Slot<P>, setup: WireSetup) -> Result<Interest, String> {
        std::panic::set_hook(Box::new(|panic| log_error!("{panic}")));
        let plugin = P::init(&Setup { config: setup.config, attributes: setup.attributes })?;
        slot.set(Some(plugin));
        Ok(Interest { key: true, headers: HeaderInterest::All, payload: true, tick_ms: None })
    }

    /// Asks the plugin about every event.
    pub fn process<P: Plugin>(slot: &'static Slot<P>, events: &[u8]) -> Result<Vec<u8>, WireFailure> {
        slot.with_borrow_mut(|plugin| {
            let plugin = plugin.as_mut().expect("the engine calls init before process");
            answer_runs(plugin, events).map_err(|failure| match failure {
                Failure::Retry(reason) => WireFailure::Retry(reason),
                Failure::Reject(reason) => WireFailure::Reject(reason),
            })
        })
    }
}
