//! From an artefact's bytes to a component that is ready to be instantiated: validated, compiled once, kept on disk.

use std::{
    collections::HashMap,
    fmt, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::Instant,
};

use levada_protocol::limits::ARTEFACT_BYTES_MAX;
use levada_stage::{Artefact, Inspected, Interface};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};
use wasmparser::{Parser, Payload};
use wasmtime::{
    Engine,
    component::{Component, ComponentExportIndex, InstancePre, Linker, types::ComponentItem},
};

use crate::{
    Error, bindings,
    cache::{Cache, Verified},
    engine,
    host::{self, GuestState},
};

/// How much the compiler gives way to everything else, plugins included, as of nice(2).
const COMPILER_NICENESS: i32 = 10;

/// The hash that identifies an artefact; displayed in hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sha256Hash(pub(crate) [u8; 32]);

impl fmt::Display for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Sha256Hash {
    fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// A component that is ready to be attached.
#[derive(Clone)]
pub struct Loaded(pub(crate) Arc<Compiled>);

impl Loaded {
    /// What is known of it.
    pub fn inspected(&self) -> Inspected {
        Inspected { interface: self.0.interface, sha256: self.0.sha256.0 }
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Loaded").field(&self.inspected()).finish()
    }
}

/// A component that can be instantiated.
pub(crate) struct Compiled {
    pub(crate) sha256: Sha256Hash,
    pub(crate) interface: Interface,
    pub(crate) pre: InstancePre<GuestState>,
    pub(crate) init: ComponentExportIndex,
    pub(crate) process: ComponentExportIndex,
}

/// All components in use, and those that were compiled before.
pub(crate) struct Registry {
    engine: Engine,
    linker: Linker<GuestState>,
    cache: Cache,
    in_use: Mutex<HashMap<Sha256Hash, Weak<Compiled>>>,
    /// Held while compiling: one at a time takes enough of the machine. Another deployment of the same bytes finds
    /// them compiled.
    compiling: Mutex<()>,
}

impl Registry {
    pub(crate) fn new(engine: &Engine, cache_dir: &Path) -> Result<Self, Error> {
        let linker = host::linker(engine).map_err(|error| Error::Unavailable(format!("{error:#}")))?;
        let cache = Cache::open(cache_dir, compatibility(engine))
            .map_err(|source| Error::Io { path: cache_dir.to_owned(), source })?;
        let (in_use, compiling) = (Mutex::default(), Mutex::default());
        Ok(Self { engine: engine.clone(), linker, cache, in_use, compiling })
    }

    /// The compiled form of `artefact` if there is one, in use or on disk. What no compiler would make a plugin of is
    /// refused here, as it need not wait for other compilations.
    pub(crate) fn look_up(&self, artefact: &Artefact) -> Result<Option<Arc<Compiled>>, Error> {
        let found = self.find(&sha256_of(artefact)?)?;
        if let (None, Artefact::Bytes(bytes)) = (&found, artefact) {
            // Nothing has checked these before.
            check_preamble(bytes)?;
            check_names(bytes)?;
        }
        Ok(found)
    }

    /// The compiled form of `artefact`: a new one, unless there is one.
    pub(crate) fn load(&self, artefact: &Artefact) -> Result<Arc<Compiled>, Error> {
        let _one_at_a_time = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = self.look_up(artefact)? {
            return Ok(found);
        }
        let sha256 = sha256_of(artefact)?;
        match artefact {
            Artefact::Bytes(bytes) => self.compile(sha256, bytes),
            Artefact::File { path, .. } => self.compile(sha256, &read_artefact(path, &sha256)?),
        }
    }

    /// Forgets the compiled form on disk; instances go on.
    pub(crate) fn forget(&self, sha256: Sha256Hash) -> std::io::Result<()> {
        self.cache.remove(&sha256)
    }

    fn find(&self, sha256: &Sha256Hash) -> Result<Option<Arc<Compiled>>, Error> {
        let in_use =
            self.in_use.lock().unwrap_or_else(PoisonError::into_inner).get(sha256).and_then(Weak::upgrade);
        if in_use.is_some() {
            return Ok(in_use);
        }
        let Some(verified) = self.cache.load(sha256) else { return Ok(None) };
        match deserialize(&self.engine, &verified) {
            Ok(component) => self.accept(*sha256, &component).map(Some),
            Err(error) => {
                warn!(artefact = %sha256, error = %error, "compiled plugin does not fit, compiling again");
                Ok(None)
            }
        }
    }

    fn compile(&self, sha256: Sha256Hash, bytes: &[u8]) -> Result<Arc<Compiled>, Error> {
        let begun = Instant::now();
        let component = compile_apart(&self.engine, bytes)?;
        let seconds = begun.elapsed().as_secs_f64();
        info!(artefact = %sha256, bytes = bytes.len(), seconds, "plugin compiled");
        let accepted = self.accept(sha256, &component)?;
        let stored = component
            .serialize()
            .map_err(|error| error.to_string())
            .and_then(|code| self.cache.store(&sha256, &code).map_err(|error| error.to_string()));
        if let Err(error) = stored {
            warn!(artefact = %sha256, error, "compiled plugin not kept, the next start compiles it again");
        }
        Ok(accepted)
    }

    /// Checks what a component exports and imports, and makes it ready.
    fn accept(&self, sha256: Sha256Hash, component: &Component) -> Result<Arc<Compiled>, Error> {
        let exported = |name| component.get_export_index(None, name);
        let (interface, instance) = match (exported(bindings::BATCH), exported(bindings::EVENTS)) {
            (Some(instance), _) => (Interface::Batch, instance),
            (None, Some(instance)) => (Interface::Events, instance),
            (None, None) => {
                let component_type = component.component_type();
                return Err(export_missing(component_type.exports(&self.engine).map(|(name, _)| name)));
            }
        };
        let component_type = component.component_type();
        if let Some((import, _)) =
            component_type.imports(&self.engine).find(|(import, _)| !host::is_granted(import))
        {
            return Err(Error::ImportDenied { import: import.to_owned() });
        }
        let function = |name| match component.get_export(Some(&instance), name) {
            Some((ComponentItem::ComponentFunc(_), index)) => Ok(index),
            _ => Err(Error::Invalid(format!("its plugin interface lacks the function `{name}`"))),
        };
        let (init, process) = (function("init")?, function("process")?);
        let pre =
            self.linker.instantiate_pre(component).map_err(|error| Error::Invalid(format!("{error:#}")))?;
        let compiled = Arc::new(Compiled { sha256, interface, pre, init, process });
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.retain(|_, known| known.strong_count() > 0);
        in_use.insert(sha256, Arc::downgrade(&compiled));
        Ok(compiled)
    }
}

fn export_missing<'a>(exports: impl Iterator<Item = &'a str>) -> Error {
    let names: Vec<&str> = exports.take(8).collect();
    Error::ExportMissing { found: if names.is_empty() { "nothing".to_owned() } else { names.join(", ") } }
}

/// Compiles on one thread, which gives way to those that serve events.
fn compile_apart(engine: &Engine, bytes: &[u8]) -> Result<Component, Error> {
    thread::scope(|scope| {
        let compiling = thread::Builder::new()
            .name("levada-compile".to_owned())
            .spawn_scoped(scope, || {
                engine::give_way(COMPILER_NICENESS);
                Component::from_binary(engine, bytes)
            })
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        match compiling.join() {
            Ok(compiled) => compiled.map_err(|error| Error::Invalid(format!("{error:#}"))),
            Err(_) => Err(Error::Unavailable("the compiler failed".to_owned())),
        }
    })
}

/// Checks the names of what a component imports and exports before it is compiled, which may take a minute. What
/// cannot be read here is left to the compiler, which says why.
fn check_names(bytes: &[u8]) -> Result<(), Error> {
    // Components and modules inside of it have imports and exports of their own.
    let mut depth = 0_u32;
    let (mut denied, mut exports, mut is_whole) = (None, Vec::new(), false);
    for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) if depth == 0 => is_whole = true,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(imports) if depth == 0 => {
                let mut names = imports.into_iter().map_while(Result::ok).map(|import| import.name.name);
                denied = denied.or_else(|| names.find(|name| !host::is_granted(name)));
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                exports.extend(section.into_iter().map_while(Result::ok).map(|export| export.name.name));
            }
            _ => {}
        }
    }
    if is_whole && !exports.iter().any(|name| [bindings::BATCH, bindings::EVENTS].contains(name)) {
        return Err(export_missing(exports.into_iter()));
    }
    match denied {
        Some(import) => Err(Error::ImportDenied { import: import.to_owned() }),
        None => Ok(()),
    }
}

/// Turns stored code into a component.
#[expect(unsafe_code, reason = "loading compiled code trusts it; only code that this engine wrote gets here")]
fn deserialize(engine: &Engine, verified: &Verified) -> wasmtime::Result<Component> {
    // SAFETY: `Verified` is only made by `Cache::load`, which checked that the file is this user's alone and that
    // its HMAC, under this engine's own key, covers exactly these bytes: they are what `serialize` gave us.
    unsafe { Component::deserialize(engine, verified.code()) }
}

/// What distinguishes engines that can not run each other's code. It names files; wasmtime checks again itself.
fn compatibility(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

fn sha256_of(artefact: &Artefact) -> Result<Sha256Hash, Error> {
    match artefact {
        Artefact::Bytes(bytes) => {
            check_size(bytes.len() as u64)?;
            Ok(Sha256Hash::of(bytes))
        }
        Artefact::File { sha256, .. } => Ok(Sha256Hash(*sha256)),
    }
}

fn check_size(got: u64) -> Result<(), Error> {
    if got > ARTEFACT_BYTES_MAX as u64 {
        return Err(Error::TooLarge { got, limit: ARTEFACT_BYTES_MAX });
    }
    Ok(())
}

fn read_artefact(path: &Path, sha256: &Sha256Hash) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    check_size(fs::metadata(path).map_err(failed)?.len())?;
    let bytes = fs::read(path).map_err(failed)?;
    if Sha256Hash::of(&bytes) != *sha256 {
        return Err(Error::Damaged { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Tells what is no component from a broken one.
fn check_preamble(bytes: &[u8]) -> Result<(), Error> {
    let wrong = match bytes.first_chunk::<8>() {
        Some([b'\0', b'a', b's', b'm', _, _, 1, 0]) => return Ok(()),
        Some([b'\0', b'a', b's', b'm', ..]) => "it is a core WebAssembly module, expected a component",
        _ => "it is not WebAssembly, expected a component",
    };
    Err(Error::Invalid(wrong.to_owned()))
}
