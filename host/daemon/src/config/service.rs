//! `[[services]]` of a manifest: the gRPC methods that a plugin can serve, checked against their descriptors.

use std::{path::Path, sync::Arc, time::Duration};

use prost_reflect::{MessageDescriptor, MethodDescriptor, ServiceDescriptor};

use super::{
    methods::is_service,
    reader::{At, Table},
};
use crate::serve::descriptors::{Descriptors, KeyField};

/// Of a method's time-out: no client wants less, and no run lasts longer than the most.
const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(3600));

/// A service of a plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// `package.Service`
    pub name: String,
    pub descriptors: Descriptors,
    pub methods: Vec<Arc<Method>>,
}

/// A method that a manifest lists.
#[derive(Debug, Clone, PartialEq)]
pub struct Method {
    /// `package.Service/Method`
    pub path: String,
    pub kind: MethodKind,
    /// Of the request.
    pub key: Option<KeyField>,
    /// With `{key}` in it.
    pub cell: String,
    pub input: MessageDescriptor,
    /// What a client waits for that sets no deadline; the host's own if `None`.
    pub timeout: Option<Duration>,
}

impl Method {
    /// Do its calls have a cell of their own?
    pub fn has_cell(&self) -> bool {
        self.key.is_some()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodKind {
    /// Without effects; answered by the host that is asked.
    Read,
    /// Its effects commit with its answer.
    Write,
}

/// `None` only along with a fault. `folder`: the manifest's. `others` are the services before it.
pub(super) fn service(table: &Table<'_>, folder: &Path, others: &[Service]) -> Option<Service> {
    let name = table.required("name", "\"package.v1.Service\"");
    let descriptors = descriptors(table, folder);
    let name = name?;
    if !is_service(&name.value) {
        table.fault_at(
            &name,
            format!("{:?} is not the name of a service; write \"package.v1.Service\"", name.value),
        );
        return None;
    }
    if others.iter().any(|other| other.name == name.value) {
        table.fault_at(
            &name,
            format!("{:?} is there twice; write all of its methods into one [[services]]", name.value),
        );
    }
    let descriptors = descriptors?;
    let Some(described) = descriptors.service(&name.value) else {
        let known: Vec<String> = descriptors.services();
        table.fault_at(
            &name,
            format!("{:?} is not in the descriptors, which have: {}", name.value, known.join(", ")),
        );
        return None;
    };
    let mut methods = Vec::new();
    if let Some(table) = table.table("methods") {
        for (method, table) in table.named_tables() {
            methods.extend(self::method(&table, &method, &described).map(Arc::new));
            table.finish();
        }
        table.finish();
    } else {
        table.fault(format!(
            "the service {:?} lists no methods, and what is not listed is not served; add [services.methods.NAME] for each",
            name.value
        ));
    }
    Some(Service { name: name.value, descriptors, methods })
}

fn descriptors(table: &Table<'_>, folder: &Path) -> Option<Descriptors> {
    let text = table.required("descriptors", "\"my.binpb\"")?;
    let path = folder.join(&text.value);
    let made = "protoc --include_imports --descriptor_set_out=FILE makes one";
    match std::fs::read(&path) {
        Ok(bytes) => Descriptors::read(bytes.into())
            .inspect_err(|error| {
                table.fault_at(
                    &text,
                    format!("{:?} is no set of file descriptors: {error}; {made}", path.display()),
                );
            })
            .ok(),
        Err(error) => {
            table.fault_at(
                &text,
                format!("descriptors names {:?}, which can't be read: {error}; {made}", path.display()),
            );
            None
        }
    }
}

fn method(table: &Table<'_>, name: &str, service: &ServiceDescriptor) -> Option<Method> {
    let kind = table.parsed("kind", "read or write", |kind| match kind {
        "read" => Some(MethodKind::Read),
        "write" => Some(MethodKind::Write),
        _ => None,
    });
    if kind.is_none() && !table.has("kind") {
        table.fault(format!("the kind of {name:?} is missing; add kind = \"read\" or kind = \"write\""));
    }
    let timeout = table.duration_within("timeout", TIMEOUTS.0, TIMEOUTS.1).optional();
    let (key, cell) = (table.string("key"), table.string("cell"));
    if let Some(cell) = &cell {
        if !cell.value.contains("{key}") {
            table.fault_at(
                cell,
                format!("cell is {:?}, so all keys would share it; put {{key}} in it", cell.value),
            );
        }
        if key.is_none() {
            table.fault_at(cell, "cell needs a key to fill in; add one, or remove cell");
        }
    }
    let Some(described) = service.methods().find(|method| method.name() == name) else {
        let known: Vec<String> = service.methods().map(|method| method.name().to_owned()).collect();
        table.fault(format!(
            "{:?} has no method {name:?}; it has: {}",
            service.full_name(),
            known.join(", ")
        ));
        return None;
    };
    if is_streaming(&described) {
        table.fault(format!("{name:?} is a streaming method; only unary ones are served"));
    }
    let input = described.input();
    let key = match key {
        Some(key) => Some(key_field(table, &key, &input)?),
        None => None,
    };
    Some(Method {
        path: format!("{}/{name}", service.full_name()),
        kind: kind?,
        key,
        cell: cell.map_or_else(|| "{key}".to_owned(), |cell| cell.value),
        input,
        timeout,
    })
}

fn is_streaming(method: &MethodDescriptor) -> bool {
    method.is_client_streaming() || method.is_server_streaming()
}

fn key_field(table: &Table<'_>, key: &At<String>, input: &MessageDescriptor) -> Option<KeyField> {
    KeyField::find(input, &key.value)
        .inspect_err(|why| table.fault_at(key, format!("key is {:?}, and {why}", key.value)))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::{super::manifest::tests::*, *};

    /// Of the fleet's own contract, written beside the manifest by the test.
    const SERVICE: &str = "[[services]]\nname = \"fleet.workflow.v1.WorkflowOrchestrationService\"\ndescriptors = \"fleet.fds\"\n";

    #[test]
    fn a_method_has_its_kind_its_key_and_its_cell() {
        let text = format!(
            "{SERVICE}[services.methods.GetWorkflowState]\nkind = \"read\"\nkey = \"task_id\"\ncell = \"task/{{key}}\"\n\
             [services.methods.RequestValidation]\nkind = \"write\"\ntimeout = \"10m\"\n"
        );
        let manifest = parse(&text).unwrap();
        let [read, write] = &manifest.services[0].methods[..] else { panic!("{:?}", manifest.services) };
        assert_eq!(read.path, "fleet.workflow.v1.WorkflowOrchestrationService/GetWorkflowState");
        assert_eq!((read.kind, read.cell.as_str(), read.has_cell()), (MethodKind::Read, "task/{key}", true));
        assert_eq!((write.kind, write.cell.as_str(), write.has_cell()), (MethodKind::Write, "{key}", false));
        assert_eq!((read.timeout, write.timeout), (None, Some(Duration::from_secs(600))));
        assert_eq!(manifest.asks.serve, ["fleet.workflow.v1.WorkflowOrchestrationService"]);
    }

    #[test]
    fn faults_name_the_value_and_the_remedy() {
        let method =
            |lines: &str| format!("{SERVICE}[services.methods.GetWorkflowState]\nkind = \"read\"\n{lines}\n");
        for (text, line, says) in [
            (
                "[[services]]\nname = \"a b\"\ndescriptors = \"fleet.fds\"\n".to_owned(),
                2,
                "is not the name of a service",
            ),
            (
                "[[services]]\nname = \"a.B\"\ndescriptors = \"no.fds\"\n".to_owned(),
                3,
                "protoc --include_imports",
            ),
            (
                "[[services]]\nname = \"a.B\"\ndescriptors = \"bad.fds\"\n".to_owned(),
                3,
                "is no set of file descriptors",
            ),
            (
                "[[services]]\nname = \"a.B\"\ndescriptors = \"fleet.fds\"\n".to_owned(),
                2,
                "is not in the descriptors, which have: ",
            ),
            (SERVICE.to_owned(), 1, "lists no methods"),
            (
                format!("{SERVICE}[services.methods.Get]\nkind = \"read\"\n"),
                4,
                "has no method \"Get\"; it has: GetWorkflowState",
            ),
            (
                format!("{SERVICE}[services.methods.GetWorkflowState]\n"),
                4,
                "the kind of \"GetWorkflowState\" is missing",
            ),
            (method("cell = \"x/{key}\""), 6, "cell needs a key"),
            (method("key = \"task_id\"\ncell = \"x\""), 7, "all keys would share it"),
            (method("key = \"taskid\""), 6, "has no field \"taskid\""),
            (method("timeout = \"61m\""), 6, "is \"61m\", which is not a duration from 1ms to 1h"),
            (method("kinds = 1"), 6, "is not a known key"),
        ] {
            check(&text, line, says);
        }
    }
}
