//! What a component is, read from its bytes before anything is compiled: which contract it was built for, what it
//! imports and exports. Nothing is executed or linked here.

use std::collections::BTreeSet;
use std::fmt;

use sha2::{Digest as _, Sha256};
use wasmparser::{Encoding, Parser, Payload};

use crate::bindings::{Contract, KNOWN_VERSIONS};
use crate::error::LoadError;

/// The custom section in which the SDK writes the version of the contract.
const VERSION_SECTION: &str = "cofferdam:wit";
const OURS: &str = "cofferdam:plugin";
/// The packages of WASI 0.2 that `wasi` links.
const WASI_PACKAGES: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];

/// SHA-256 of a component's bytes: its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// In hexadecimal.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a component is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    pub digest: Digest,
    /// Bytes of the component.
    pub size: usize,
    /// The version of `cofferdam:plugin` that it was built for, as its handler names it: `0.1.0`.
    pub wit: String,
    /// The interfaces of ours that it imports, by their short names: `publish`, `state`.
    pub imports: BTreeSet<String>,
    /// The WASI interfaces that it imports, as `wasi:cli/stdout@0.2.6`.
    pub wasi: BTreeSet<String>,
    /// It exports `service`: requests can be run in it, too.
    pub serves: bool,
    /// All that it exports, as written. More than is asked for is fine.
    pub exports: BTreeSet<String>,
    pub(crate) contract: Contract,
}

impl Shape {
    /// The name of the handler's export.
    pub(crate) fn handler(&self) -> String {
        format!("{OURS}/handler@{}", self.wit)
    }

    /// The name of the service's export, if it has one.
    pub(crate) fn service(&self) -> Option<&str> {
        let service = |name: &&String| matches!(Name::parse(name), Name::Ours { interface: "service", .. });
        self.exports.iter().find(service).map(String::as_str)
    }
}

/// The names at the surface of a component.
#[derive(Default)]
struct Surface {
    imports: BTreeSet<String>,
    exports: BTreeSet<String>,
    stamp: Option<String>,
}

pub(crate) fn inspect(bytes: &[u8]) -> Result<Shape, LoadError> {
    let Surface { imports, exports, stamp } = surface(bytes)?;

    let exported = |wanted: &str| {
        exports.iter().find_map(|name| match Name::parse(name) {
            Name::Ours { interface, version } if interface == wanted => Some(version),
            _ => None,
        })
    };
    let (handler, service) = (exported("handler"), exported("service"));
    let mut ours = BTreeSet::new();
    let mut wasi = BTreeSet::new();
    let mut versions = BTreeSet::new();
    for import in &imports {
        match Name::parse(import) {
            Name::Ours { interface, version } => {
                versions.insert(version);
                ours.insert((interface, import));
            }
            Name::Wasi { package, version } => {
                if !version.starts_with("0.2.") || !WASI_PACKAGES.contains(&package) {
                    return Err(LoadError::UnknownWasi {
                        import: import.clone(),
                        linked: WASI_PACKAGES.join(", "),
                    });
                }
                wasi.insert(import.clone());
            }
            Name::Foreign => return Err(LoadError::ForeignImport { import: import.clone() }),
        }
    }
    versions.extend(handler);
    versions.extend(service);
    versions.extend(stamp.as_deref());
    // Before the missing handler: of a version that we do not know, the handler may have another name.
    let mut contract = None;
    for version in &versions {
        contract = Some(Contract::of(version).ok_or_else(|| LoadError::UnknownVersion {
            found: if version.is_empty() { "(no version)".to_owned() } else { (*version).to_owned() },
            known: KNOWN_VERSIONS,
        })?);
    }
    let (Some(wit), Some(contract)) = (handler, contract) else {
        let exports = exports.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(LoadError::NoHandler {
            exports: if exports.is_empty() { "none".into() } else { exports },
        });
    };
    for (interface, import) in &ours {
        if !contract.interfaces().contains(interface) && *interface != "types" {
            return Err(LoadError::UnknownInterface { import: (*import).clone(), known: KNOWN_VERSIONS });
        }
    }

    Ok(Shape {
        digest: Digest::of(bytes),
        size: bytes.len(),
        wit: wit.to_owned(),
        // `types` brings no function.
        imports: ours
            .iter()
            .map(|(interface, _)| *interface)
            .filter(|interface| *interface != "types")
            .map(str::to_owned)
            .collect(),
        wasi,
        serves: service.is_some(),
        exports: exports.clone(),
        contract,
    })
}

/// A name at the surface: `package:name/interface@version`.
enum Name<'a> {
    Ours { interface: &'a str, version: &'a str },
    Wasi { package: &'a str, version: &'a str },
    Foreign,
}

impl<'a> Name<'a> {
    fn parse(name: &'a str) -> Self {
        let (path, version) = name.split_once('@').unwrap_or((name, ""));
        let Some((package, interface)) = path.split_once('/') else { return Self::Foreign };
        match package.split_once(':') {
            _ if package == OURS => Self::Ours { interface, version },
            Some(("wasi", package)) => Self::Wasi { package, version },
            _ => Self::Foreign,
        }
    }
}

fn surface(bytes: &[u8]) -> Result<Surface, LoadError> {
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadError::NotWasm { found: bytes.iter().take(4).copied().collect() });
    }
    let mut surface = Surface::default();
    // Modules and components lie within the component; only the outermost has a surface.
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding, .. } => {
                if depth == 0 && encoding == Encoding::Module {
                    return Err(LoadError::CoreModule);
                }
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    surface.imports.insert(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    surface.exports.insert(export.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::CustomSection(section) if section.name() == VERSION_SECTION => {
                surface.stamp = Some(String::from_utf8_lossy(section.data()).trim().to_owned());
            }
            _ => {}
        }
    }
    Ok(surface)
}

fn malformed(error: wasmparser::Error) -> LoadError {
    LoadError::Malformed { offset: error.offset() as u64, message: error.message().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assemble, guest, guest_of_version, guest_serving};

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn error(text: &str) -> String {
        inspect(&assemble(text)).unwrap_err().to_string()
    }

    #[test]
    fn a_shape_names_what_the_component_reaches() {
        let imports = r#"
            (import "cofferdam:plugin/clock@0.1.0" (instance (export "now" (func (result u64)))))
            (import "wasi:cli/exit@0.2.3" (instance))"#;
        let bytes = guest(imports, "", "");
        let shape = inspect(&bytes).unwrap();
        assert_eq!(shape.wit, "0.1.0");
        assert_eq!(shape.imports, names(&["clock"]));
        assert_eq!(shape.wasi, names(&["wasi:cli/exit@0.2.3"]));
        assert!(shape.exports.contains("cofferdam:plugin/handler@0.1.0"));
        assert_eq!(shape.size, bytes.len());
        assert_eq!(shape.digest.to_string().len(), 64);
    }

    #[test]
    fn extra_exports_are_tolerated() {
        let bytes = guest("", "", "(instance $more) (export \"acme:other/more\" (instance $more))");
        assert!(inspect(&bytes).unwrap().exports.contains("acme:other/more"));
    }

    #[test]
    fn a_shape_tells_whether_the_component_serves() {
        let serving = inspect(&guest_serving("", "unreachable")).unwrap();
        assert!(serving.serves && serving.service() == Some("cofferdam:plugin/service@0.1.0"));
        let handling = inspect(&guest("", "", "")).unwrap();
        assert!(!handling.serves && handling.service().is_none());
    }

    #[test]
    fn a_service_of_an_unknown_version_is_refused() {
        let more = "(instance $more) (export \"cofferdam:plugin/service@0.9.0\" (instance $more))";
        let error = inspect(&guest("", "", more)).unwrap_err().to_string();
        assert!(error.starts_with("built for cofferdam:plugin@0.9.0;"), "{error}");
    }

    #[test]
    fn what_is_not_wasm_is_refused() {
        let error = inspect(b"#!/bin/sh").unwrap_err().to_string();
        assert_eq!(error, "not a WebAssembly binary: it begins with [23, 21, 2f, 62] instead of 00 61 73 6d");
        assert!(matches!(inspect(b""), Err(LoadError::NotWasm { .. })));
    }

    #[test]
    fn a_core_module_is_told_how_to_become_a_component() {
        assert!(error("(module)").contains("wasm-tools component new"));
    }

    #[test]
    fn a_truncated_component_is_malformed() {
        let bytes = guest("", "", "");
        let error = inspect(&bytes[..bytes.len() / 2]).unwrap_err();
        assert!(matches!(error, LoadError::Malformed { .. }), "{error}");
    }

    #[test]
    fn a_component_without_a_handler_is_refused() {
        let error = error("(component (instance $a) (export \"acme:other/init\" (instance $a)))");
        assert!(error.contains("no export cofferdam:plugin/handler"), "{error}");
        assert!(error.contains("exports found: acme:other/init"), "{error}");
    }

    #[test]
    fn an_unknown_version_lists_those_that_are_known() {
        let error = inspect(&guest_of_version("0.9.0")).unwrap_err().to_string();
        assert!(error.starts_with("built for cofferdam:plugin@0.9.0; this host knows 0.1"), "{error}");
    }

    #[test]
    fn the_stamp_tells_the_version_when_nothing_else_does() {
        let stamped = "(component (@custom \"cofferdam:wit\" \"0.9.0\"))";
        assert!(error(stamped).starts_with("built for cofferdam:plugin@0.9.0;"));
    }

    #[test]
    fn a_patch_release_is_the_same_contract() {
        assert_eq!(inspect(&guest_of_version("0.1.7")).unwrap().wit, "0.1.7");
    }

    #[test]
    fn an_interface_that_we_do_not_have_is_named() {
        let bytes = guest("(import \"cofferdam:plugin/teleport@0.1.0\" (instance))", "", "");
        let error = inspect(&bytes).unwrap_err().to_string();
        assert!(error.contains("cofferdam:plugin/teleport@0.1.0"), "{error}");
    }

    #[test]
    fn imports_from_elsewhere_are_refused_before_compiling() {
        for (import, expected) in [
            ("acme:db/query@1.0.0", "compose the component"),
            ("wasi:http/types@0.2.0", "the only WASI linked here"),
            ("wasi:cli/stdout@0.3.0", "the only WASI linked here"),
        ] {
            let bytes = guest(&format!("(import {import:?} (instance))"), "", "");
            let error = inspect(&bytes).unwrap_err().to_string();
            assert!(error.contains(import) && error.contains(expected), "{error}");
        }
        let bytes = guest("(import \"print\" (func))", "", "");
        assert!(matches!(inspect(&bytes), Err(LoadError::ForeignImport { .. })));
    }
}
