//! What keeps the walls inside the crates: which files of a crate know each other, where a type's methods are, and how
//! much one type holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Fields, Item, Type, UseTree, Visibility};

use crate::tidy::{files, root};

/// Fields of a struct that is not plain data, at most.
const FIELDS_MAX: usize = 12;

/// The crates that are looked at.
const SOURCES: [&str; 20] = [
    "engine/bench/src",
    "engine/broker/src",
    "engine/chain/src",
    "engine/cli/src",
    "engine/delivery/src",
    "engine/demo/src",
    "engine/gateway/src",
    "engine/plugin-host/src",
    "engine/rig/src",
    "engine/server/src",
    "engine/stage/src",
    "engine/store/src",
    "engine/terminal/src",
    "engine/webhook/src",
    "sdk/client/src",
    "sdk/cloudevents/src",
    "sdk/expression/src",
    "sdk/json/src",
    "sdk/plugin/src",
    "sdk/protocol/src",
];

/// Files that know each other, each pair of crate and file with why.
const CIRCLES_ALLOWED: [(&str, &str); 25] = [
    ("engine/broker/src/route", "a task is started by its route, and shows its state there"),
    ("engine/broker/src/route/commit", "what is under way is not a type of its own yet"),
    ("engine/broker/src/route/task", "what is under way is not a type of its own yet"),
    ("engine/plugin-host/src/cache", "the hash of an artefact is the registry's"),
    ("engine/plugin-host/src/registry", "the hash of an artefact is the registry's"),
    ("engine/plugin-host/src/host", "a capability knows the state that it is part of"),
    ("engine/plugin-host/src/host/log", "a capability knows the state that it is part of"),
    ("engine/plugin-host/src/plugins", "the contract is implemented beside what serves it"),
    ("engine/plugin-host/src/service", "the contract is implemented beside what serves it"),
    ("engine/plugin-host/src/pool", "turns are of the pool's own work"),
    ("engine/plugin-host/src/pool/turns", "turns are of the pool's own work"),
    ("engine/server/src/config", "a section is checked with the errors of the whole"),
    ("engine/server/src/config/section", "a section is checked with the errors of the whole"),
    ("sdk/client/src/delivered", "the driver is started by what it drives, and gives back its types"),
    ("sdk/client/src/delivery", "the driver is started by what it drives, and gives back its types"),
    ("sdk/client/src/publisher", "the driver is started by what it drives, and gives back its types"),
    ("sdk/client/src/publisher/driver", "the driver is started by what it drives, and gives back its types"),
    ("sdk/client/src/reader", "the driver is started by what it drives, and gives back its types"),
    ("sdk/client/src/reader/task", "the driver is started by what it drives, and gives back its types"),
    ("sdk/client/src/subscriber", "the driver is started by what it drives, and gives back its types"),
    ("sdk/client/src/subscriber/driver", "the driver is started by what it drives, and gives back its types"),
    ("sdk/client/src/subscriber/lease", "the driver is started by what it drives, and gives back its types"),
    ("sdk/client/src/subscriber/state", "the driver is started by what it drives, and gives back its types"),
    ("sdk/protocol/src/request/stream", "a subscribe has options, an option has positions"),
    ("sdk/protocol/src/request/subscription", "a subscribe has options, an option has positions"),
];
/// Types with methods in another file, each with why.
const IMPLS_ALLOWED: [(&str, &str, &str); 14] = [
    (
        "Broker",
        "engine/broker/src/owners",
        "requests are answered beside the broker, and are not a part of their own yet",
    ),
    (
        "Broker",
        "engine/broker/src/requests",
        "requests are answered beside the broker, and are not a part of their own yet",
    ),
    (
        "Broker",
        "engine/broker/src/requests/dead_letters",
        "requests are answered beside the broker, and are not a part of their own yet",
    ),
    (
        "Broker",
        "engine/broker/src/requests/deleting",
        "requests are answered beside the broker, and are not a part of their own yet",
    ),
    (
        "Broker",
        "engine/broker/src/requests/plugins",
        "requests are answered beside the broker, and are not a part of their own yet",
    ),
    (
        "Broker",
        "engine/broker/src/requests/routes",
        "requests are answered beside the broker, and are not a part of their own yet",
    ),
    (
        "Broker",
        "engine/broker/src/requests/subscriptions",
        "requests are answered beside the broker, and are not a part of their own yet",
    ),
    (
        "Broker",
        "engine/broker/src/requests/transactions",
        "requests are answered beside the broker, and are not a part of their own yet",
    ),
    ("RouteTask", "engine/broker/src/route/commit", "what is under way is not a type of its own yet"),
    ("Rules", "engine/chain/src/validate", "validation by an attachment point's rules is a file of its own"),
    ("Client", "sdk/client/src/admin", "one type for users, a file for each group of its calls"),
    ("Client", "sdk/client/src/dead_letters", "one type for users, a file for each group of its calls"),
    ("Client", "sdk/client/src/ensure", "one type for users, a file for each group of its calls"),
    (
        "Client",
        "sdk/client/src/transaction/producer_group",
        "one type for users, a file for each group of its calls",
    ),
];
/// Structs with more fields, each with why.
const FIELDS_ALLOWED: [(&str, &str); 7] = [
    ("Inner", "what all clones of a broker share; requests are not a part of their own yet"),
    ("BrokerConfig", "settings, each for itself"),
    ("Collected", "one field a series"),
    ("ReaderTask", "not divided yet"),
    ("Core", "not divided yet"),
    ("Lane", "not divided yet"),
    ("State", "not divided yet"),
];

/// A module's place below its crate's root.
type Place = Vec<String>;

/// One file of a crate, its tests left out.
#[derive(Default)]
struct Module {
    /// Paths to other modules of the crate, as written.
    paths: Vec<Vec<String>>,
    /// What it shows under its own name and has from elsewhere.
    shown: BTreeMap<String, Vec<String>>,
    types: BTreeSet<String>,
    implemented: Vec<String>,
    /// Structs that are not plain data, with how many fields they have.
    structs: Vec<(String, usize)>,
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|it| it.path().is_ident("cfg") && it.to_token_stream().to_string().contains("test"))
}

/// True for what is read from or written to somewhere by a derive: its fields are what the other side says.
fn is_data(attributes: &[Attribute]) -> bool {
    let derives = attributes.iter().filter(|it| it.path().is_ident("derive"));
    let text: String = derives.map(|it| it.to_token_stream().to_string()).collect();
    ["Serialize", "Deserialize", "Args", "Parser", "Subcommand"].iter().any(|it| text.contains(it))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Macro(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Static(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

/// Every path that a use tree names.
fn leaves(tree: &UseTree, before: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
    match tree {
        UseTree::Path(it) => leaves(&it.tree, &with(&it.ident), found),
        UseTree::Name(it) => found.push((it.ident.to_string(), with(&it.ident))),
        UseTree::Rename(it) => found.push((it.rename.to_string(), with(&it.ident))),
        UseTree::Glob(_) => found.push(("*".to_owned(), before.to_vec())),
        UseTree::Group(it) => it.items.iter().for_each(|tree| leaves(tree, before, found)),
    }
}

/// Every path in code that begins at the crate or above the module.
fn written(tokens: TokenStream, found: &mut Vec<Vec<String>>) {
    let (mut path, mut colons): (Vec<String>, usize) = (Vec::new(), 0);
    for token in tokens {
        match &token {
            TokenTree::Ident(name) => {
                let name = name.to_string();
                if path.is_empty() || colons == 2 {
                    if !path.is_empty() || ["crate", "super"].contains(&name.as_str()) {
                        path.push(name);
                    }
                } else {
                    found.push(std::mem::take(&mut path));
                    if ["crate", "super"].contains(&name.as_str()) {
                        path.push(name);
                    }
                }
                colons = 0;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
            _ => {
                // A group behind `::` is a use tree, whose leaves are found apart.
                if colons != 2 {
                    found.push(std::mem::take(&mut path));
                }
                (path, colons) = (Vec::new(), 0);
                // What a visibility names is who may look in, not what is looked at.
                if let TokenTree::Group(group) = token
                    && !matches!(group.stream().into_iter().next(), Some(TokenTree::Ident(first)) if first == "in")
                {
                    written(group.stream(), found);
                }
            }
        }
    }
    found.push(path);
}

fn read(items: &[Item], module: &mut Module) {
    for item in items.iter().filter(|item| !is_test(attributes(item))) {
        match item {
            Item::Use(it) => {
                let mut found = Vec::new();
                leaves(&it.tree, &[], &mut found);
                match it.vis {
                    Visibility::Inherited => module.paths.extend(found.into_iter().map(|(_, path)| path)),
                    _ => module.shown.extend(found),
                }
                continue;
            }
            Item::Mod(it) => {
                if let Some((_, items)) = &it.content {
                    read(items, module);
                }
                continue;
            }
            Item::Enum(it) => drop(module.types.insert(it.ident.to_string())),
            Item::Struct(it) => {
                module.types.insert(it.ident.to_string());
                if let Fields::Named(fields) = &it.fields
                    && !is_data(&it.attrs)
                {
                    module.structs.push((it.ident.to_string(), fields.named.len()));
                }
            }
            Item::Impl(it) if it.trait_.is_none() => {
                if let Type::Path(path) = it.self_ty.as_ref()
                    && let Some(name) =
                        path.path.get_ident().or_else(|| path.path.segments.last().map(|it| &it.ident))
                {
                    module.implemented.push(name.to_string());
                }
            }
            _ => {}
        }
        written(item.to_token_stream(), &mut module.paths);
    }
}

/// The modules of a crate by place. `main.rs` belongs to another crate, and test files are left out.
fn modules(source: &Path) -> BTreeMap<Place, Module> {
    let mut modules = BTreeMap::new();
    for path in files(source, ".rs") {
        let relative = path.strip_prefix(source).unwrap().with_extension("");
        let mut place: Place = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if place.iter().any(|part| part == "tests" || part == "main" || part == "check") {
            continue;
        }
        if place.last().is_some_and(|last| last == "mod" || last == "lib") {
            place.pop();
        }
        let file = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
        let mut module = Module::default();
        read(&file.items, &mut module);
        modules.insert(place, module);
    }
    modules
}

/// The module that a path leads to, through what others show under their own names.
fn resolve(modules: &BTreeMap<Place, Module>, from: &Place, path: &[String], depth: usize) -> Option<Place> {
    let mut rest = path;
    let mut place = match path.first()?.as_str() {
        "crate" => {
            rest = &rest[1..];
            Place::new()
        }
        "self" | "super" => {
            let mut place = from.clone();
            while let Some(first) = rest.first().filter(|first| *first == "self" || *first == "super") {
                if first == "super" {
                    place.pop();
                }
                rest = &rest[1..];
            }
            place
        }
        first => {
            // A child of the module, or something of another crate.
            let child = [from.as_slice(), &[first.to_owned()]].concat();
            modules.contains_key(&child).then(|| from.clone())?
        }
    };
    while let Some(first) = rest.first() {
        let below = [place.as_slice(), std::slice::from_ref(first)].concat();
        if !modules.contains_key(&below) {
            break;
        }
        place = below;
        rest = &rest[1..];
    }
    let shown = rest.first().and_then(|first| modules.get(&place)?.shown.get(first));
    match shown {
        Some(shown) if depth < 8 => resolve(modules, &place, shown, depth + 1).or(Some(place)),
        _ => Some(place),
    }
}

/// The files of a crate that can be reached from each.
fn reached(modules: &BTreeMap<Place, Module>) -> BTreeMap<Place, BTreeSet<Place>> {
    let known: BTreeMap<&Place, BTreeSet<Place>> = modules
        .iter()
        .map(|(place, module)| {
            let paths = module.paths.iter().filter(|path| path.len() > 1);
            let to = paths.filter_map(|path| resolve(modules, place, path, 0));
            (place, to.filter(|to| to != place && modules.contains_key(to)).collect())
        })
        .collect();
    let mut all = BTreeMap::new();
    for place in modules.keys() {
        let (mut seen, mut open) = (BTreeSet::new(), vec![place]);
        while let Some(next) = open.pop() {
            for to in &known[next] {
                if seen.insert(to.clone()) {
                    open.push(modules.get_key_value(to).unwrap().0);
                }
            }
        }
        all.insert(place.clone(), seen);
    }
    all
}

fn crates() -> Vec<(&'static str, BTreeMap<Place, Module>)> {
    SOURCES.iter().map(|source| (*source, modules(&root().join(source)))).collect()
}

#[test]
fn no_files_of_a_crate_know_each_other() {
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for (source, modules) in crates() {
        assert!(!modules.is_empty(), "{source} was found");
        for (place, reached) in reached(&modules) {
            if reached.contains(&place) {
                let name = format!("{source}/{}", place.join("/"));
                match CIRCLES_ALLOWED.iter().find(|(allowed, _)| *allowed == name) {
                    Some(allowed) => drop(used.insert(allowed.0)),
                    None => wrong.push(name),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "these are on circles: {wrong:#?}");
    assert_eq!(used.len(), CIRCLES_ALLOWED.len(), "exceptions that nobody needs go");
}

#[test]
fn a_type_has_its_methods_in_its_own_file() {
    let (mut wrong, mut used) = (Vec::new(), 0);
    for (source, modules) in crates() {
        for (place, module) in &modules {
            for name in &module.implemented {
                let file = format!("{source}/{}", place.join("/"));
                let is_elsewhere = modules.values().any(|module| module.types.contains(name));
                if !is_elsewhere || module.types.contains(name) {
                    continue;
                }
                match IMPLS_ALLOWED.iter().any(|(of, at, _)| of == name && *at == file) {
                    true => used += 1,
                    false => wrong.push(format!("{name} in {file}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "methods are away from their types: {wrong:#?}");
    assert_eq!(used, IMPLS_ALLOWED.len(), "exceptions that nobody needs go");
}

#[test]
fn no_type_holds_too_much() {
    let (mut wrong, mut used) = (Vec::new(), 0);
    for (source, modules) in crates() {
        for (place, module) in &modules {
            for (name, fields) in module.structs.iter().filter(|(_, fields)| *fields > FIELDS_MAX) {
                match FIELDS_ALLOWED.iter().any(|(allowed, _)| allowed == name) {
                    true => used += 1,
                    false => wrong.push(format!("{name} in {source}/{} has {fields}", place.join("/"))),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "more than {FIELDS_MAX} fields: {wrong:#?}");
    assert_eq!(used, FIELDS_ALLOWED.len(), "exceptions that nobody needs go");
}
