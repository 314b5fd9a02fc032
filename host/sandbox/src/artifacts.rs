//! Compiled components on disk. A file that is not exactly what this sandbox wrote for this component and these
//! engine settings is thrown away before wasmtime sees it: wasmtime runs what it is given.
//!
//! Excluded: damage (a bad disk, a truncated write, files swapped or left by another version), and anybody who
//! cannot write to the directory, which is the daemon's own (0700, checked). Not excluded: whoever can write there as the
//! daemon's user. The checksum is no signature; such a writer can run code as the daemon in easier ways.

use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::{LoadError, SandboxError};
use crate::inspect::Digest;

/// Bumped when the header changes.
const MAGIC: &[u8; 16] = b"cofferdam-aot-1\n";
/// Magic, digest of the component, hash of the settings, checksum of the code.
const HEADER: usize = 16 + 32 + 32 + 32;

/// The cache of one engine.
#[derive(Debug)]
pub(crate) struct Artifacts {
    directory: PathBuf,
    settings: [u8; 32],
}

/// Why a cached file is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Rejected {
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    #[error("it is truncated: {0} bytes are less than a header")]
    Truncated(usize),
    #[error("it is no artifact of this version of Cofferdam")]
    Magic,
    #[error("it belongs to another component, {0}")]
    Component(Digest),
    #[error("it was compiled with other engine settings")]
    Settings,
    #[error("its code does not match its checksum")]
    Checksum,
}

/// Code whose header and checksum were found right. Nothing else gets deserialized.
pub(crate) struct Verified {
    file: Vec<u8>,
}

impl Verified {
    fn code(&self) -> &[u8] {
        &self.file[HEADER..]
    }
}

impl Artifacts {
    pub(crate) fn open(directory: &Path, engine: &Engine) -> Result<Self, SandboxError> {
        let failed = |source| SandboxError::Cache { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let metadata = fs::metadata(directory).map_err(failed)?;
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o777);
        if owner != rustix::process::geteuid().as_raw() || mode & 0o022 != 0 {
            return Err(SandboxError::CacheNotPrivate { path: directory.to_owned(), owner, mode });
        }
        Ok(Self { directory: directory.to_owned(), settings: settings_hash(engine) })
    }

    /// What was cached of a component. What cannot be used is logged and removed.
    pub(crate) fn get(&self, engine: &Engine, component: Digest) -> Option<Component> {
        let path = self.path(component);
        let verified = match self.read(&path, component) {
            Ok(verified) => verified,
            Err(Rejected::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(reason) => {
                discard(&path, &reason.to_string());
                return None;
            }
        };
        match deserialize(engine, &verified) {
            Ok(component) => Some(component),
            Err(error) => {
                discard(&path, &format!("wasmtime refuses it: {error:#}"));
                None
            }
        }
    }

    /// Keeps a compiled component. That it could not be kept is logged: it only costs the next start time.
    pub(crate) fn put(&self, digest: Digest, component: &Component) {
        let path = self.path(digest);
        let written = component
            .serialize()
            .map_err(|error| format!("{error:#}"))
            .and_then(|code| self.write(&path, digest, &code).map_err(|error| error.to_string()));
        if let Err(error) = written {
            tracing::warn!(file = %path.display(), error, "cannot cache the compiled component");
        }
    }

    /// The settings are part of the name, so that two versions of the daemon can share the directory.
    fn path(&self, component: Digest) -> PathBuf {
        let settings = Digest(self.settings).to_string();
        self.directory.join(format!("{component}-{}.aot", &settings[..16]))
    }

    fn header(&self, component: Digest, code: &[u8]) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&component.0);
        header.extend_from_slice(&self.settings);
        header.extend_from_slice(&Sha256::digest(code));
        header
    }

    /// Reads once, so that what was verified is what gets deserialized.
    fn read(&self, path: &Path, component: Digest) -> Result<Verified, Rejected> {
        let file = fs::read(path).map_err(Rejected::Unreadable)?;
        let Some((header, code)) = file.split_at_checked(HEADER) else {
            return Err(Rejected::Truncated(file.len()));
        };
        let (magic, header) = header.split_at(MAGIC.len());
        let (digest, header) = header.split_at(32);
        let (settings, checksum) = header.split_at(32);
        if magic != MAGIC {
            return Err(Rejected::Magic);
        }
        if digest != component.0 {
            return Err(Rejected::Component(Digest(digest.try_into().unwrap_or_default())));
        }
        if settings != self.settings {
            return Err(Rejected::Settings);
        }
        if checksum != Sha256::digest(code).as_slice() {
            return Err(Rejected::Checksum);
        }
        Ok(Verified { file })
    }

    /// Whole or not at all: readers see the old file, or none, until the rename.
    fn write(&self, path: &Path, component: Digest, code: &[u8]) -> io::Result<()> {
        static UNIQUE: AtomicU64 = AtomicU64::new(0);
        let unique = UNIQUE.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(format!(".{component}.{}.{unique}", std::process::id()));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(&self.header(component, code))?;
            file.write_all(code)?;
            fs::rename(&temporary, path)
        })();
        if written.is_err() {
            // The first error is the one to tell; a left-over is harmless.
            fs::remove_file(&temporary).ok();
        }
        written
    }
}

/// Compiles, without a look at the cache.
pub(crate) fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, LoadError> {
    Component::new(engine, bytes).map_err(|error| LoadError::Compile(format!("{error:#}")))
}

#[allow(
    unsafe_code,
    reason = "wasmtime cannot check native code; `Verified` is what this sandbox compiled itself"
)]
fn deserialize(engine: &Engine, artifact: &Verified) -> wasmtime::Result<Component> {
    // SAFETY: the bytes are the output of `Component::serialize` of an engine with the same settings and version:
    // `Artifacts::read`, the only maker of `Verified`, compared both and the checksum on this very buffer. That
    // nobody but the daemon's user wrote them is the directory's mode, checked in `Artifacts::open`.
    unsafe { Component::deserialize(engine, artifact.code()) }
}

fn discard(path: &Path, reason: &str) {
    tracing::warn!(file = %path.display(), reason, "cached component discarded, compiling anew");
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(file = %path.display(), %error, "cannot remove the discarded file");
    }
}

/// All that decides whether compiled code fits: wasmtime's version, the target, flags and tunables.
fn settings_hash(engine: &Engine) -> [u8; 32] {
    struct Sink(Sha256);
    impl Hasher for Sink {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        /// Nobody asks: the whole digest is taken instead.
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut sink = Sink(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut sink);
    sink.0.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::SandboxConfig;
    use crate::engine;
    use crate::testing::{guest, small};

    struct Setup {
        directory: tempfile::TempDir,
        engine: Engine,
        artifacts: Artifacts,
    }

    fn setup() -> Setup {
        let directory = tempfile::tempdir().unwrap();
        let engine = engine::engine(&small()).unwrap();
        let artifacts = Artifacts::open(directory.path(), &engine).unwrap();
        Setup { directory, engine, artifacts }
    }

    impl Setup {
        /// Compiles a component and keeps it; tells its digest and its file.
        fn keep(&self, bytes: &[u8]) -> (Digest, PathBuf) {
            let digest = Digest::of(bytes);
            self.artifacts.put(digest, &compile(&self.engine, bytes).unwrap());
            (digest, self.artifacts.path(digest))
        }

        /// `read` fails, so `deserialize`, which takes nothing but what `read` verified, is not reached; the
        /// file is gone, and the component comes back by compiling.
        fn assert_discarded(&self, digest: Digest, path: &Path) -> Rejected {
            let rejected = self.artifacts.read(path, digest).err().expect("verified");
            assert!(self.artifacts.get(&self.engine, digest).is_none());
            assert!(!path.exists());
            rejected
        }
    }

    #[test]
    fn a_kept_component_comes_back() {
        let setup = setup();
        let (digest, path) = setup.keep(&guest("", "", ""));
        assert!(setup.artifacts.get(&setup.engine, digest).is_some());
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(setup.directory.path()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn a_flipped_bit_anywhere_discards_the_file() {
        let setup = setup();
        let bytes = guest("", "", "");
        let (digest, path) = setup.keep(&bytes);
        let whole = fs::read(&path).unwrap();
        for offset in [0, 15, 16, 47, 48, 79, 80, 111, 112, whole.len() / 2, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[offset] ^= 1;
            fs::write(&path, &flipped).unwrap();
            let rejected = setup.assert_discarded(digest, &path);
            let expected = match offset {
                0..16 => matches!(rejected, Rejected::Magic),
                16..48 => matches!(rejected, Rejected::Component(_)),
                48..80 => matches!(rejected, Rejected::Settings),
                _ => matches!(rejected, Rejected::Checksum),
            };
            assert!(expected, "byte {offset}: {rejected}");
        }
        setup.keep(&bytes);
        assert!(setup.artifacts.get(&setup.engine, digest).is_some());
    }

    #[test]
    fn a_truncated_file_is_discarded() {
        let setup = setup();
        let (digest, path) = setup.keep(&guest("", "", ""));
        let whole = fs::read(&path).unwrap();
        for length in [0, 1, HEADER - 1, HEADER, HEADER + 1, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            setup.assert_discarded(digest, &path);
        }
    }

    #[test]
    fn swapped_files_are_discarded() {
        let setup = setup();
        let (one, one_path) = setup.keep(&guest("", "", ""));
        let (two, two_path) = setup.keep(&guest("", "(nop)", ""));
        assert_ne!(one, two);
        let kept = fs::read(&one_path).unwrap();
        fs::rename(&two_path, &one_path).unwrap();
        fs::write(&two_path, kept).unwrap();
        assert!(matches!(setup.assert_discarded(one, &one_path), Rejected::Component(other) if other == two));
        assert!(matches!(setup.assert_discarded(two, &two_path), Rejected::Component(other) if other == one));
    }

    #[test]
    fn other_engine_settings_compile_anew() {
        let setup = setup();
        let (digest, path) = setup.keep(&guest("", "", ""));
        let mut settings = engine::settings(&small());
        settings.cranelift_nan_canonicalization(false);
        let other = Engine::new(&settings).unwrap();
        let artifacts = Artifacts::open(setup.directory.path(), &other).unwrap();
        assert!(artifacts.get(&other, digest).is_none());
        // The name differs; put in its place nevertheless, the header gives it away.
        fs::copy(&path, artifacts.path(digest)).unwrap();
        let rejected = artifacts.read(&artifacts.path(digest), digest).err().expect("verified");
        assert!(matches!(rejected, Rejected::Settings), "{rejected}");
        assert!(
            setup.artifacts.get(&setup.engine, digest).is_some(),
            "the first engine's own file is untouched"
        );
    }

    #[test]
    fn the_directory_is_made_private_and_must_be() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("state").join("artifacts");
        let engine = engine::engine(&SandboxConfig { max_instances: 1, ..small() }).unwrap();
        Artifacts::open(&directory, &engine).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o770)).unwrap();
        let error = Artifacts::open(&directory, &engine).unwrap_err().to_string();
        assert!(error.contains("mode 770"), "{error}");
    }
}
