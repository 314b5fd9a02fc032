//! Streams and durables as such: made, found as they are, deleted.

use std::{collections::BTreeSet, sync::Arc};

use super::{Now, OURS, State};
use crate::{
    api::{ConsumerSpec, Origin, StreamInfo, StreamSpec},
    error::Error,
    local::{
        durable::Durable,
        fault::Fault,
        stream::Stream,
        tables::{DurableId, Tables},
    },
};

impl State {
    pub(super) fn ensure_stream(
        &mut self,
        tables: &mut Tables<'_>,
        spec: &StreamSpec,
        now: Now,
    ) -> Result<Result<StreamInfo, Error>, Fault> {
        let all = |stream: &&Stream| spec.subjects.iter().all(|s| stream.covers(s));
        if let Some(stream) = self.streams.values().find(all) {
            return Ok(Ok(stream.info().clone()));
        }
        let some = |stream: &&Stream| stream.name == spec.name || stream.overlaps(&spec.subjects);
        if let Some(stream) = self.streams.values().find(some) {
            let (its, ours) = (stream.info().subjects.join(", "), spec.subjects.join(", "));
            let difference = format!("it stores {its}; ours is to store {ours}");
            return Ok(Err(Error::Differs { what: "stream", name: stream.name.clone(), difference }));
        }
        let stream = Stream::create(tables, spec, false, now.wall)?;
        let info = stream.info().clone();
        self.streams.insert(stream.id(), stream);
        Ok(Ok(info))
    }

    pub(super) fn ensure_durable(
        &mut self,
        tables: &mut Tables<'_>,
        spec: &ConsumerSpec,
        now: Now,
    ) -> Result<Result<Arc<Origin>, Error>, Fault> {
        // One that is new counts what is there.
        self.note();
        let Some(stream) = self.streams.values().find(|s| s.name == spec.stream) else {
            return Ok(Err(Error::Gone { what: "stream", name: spec.stream.clone() }));
        };
        let same = |d: &&Durable| d.stream() == stream.id() && d.origin.durable == spec.durable;
        if let Some(durable) = self.durables.values().find(same) {
            let differences = durable.differences(spec);
            if differences.is_empty() {
                return Ok(Ok(durable.origin.clone()));
            }
            let name = format!("{}/{}", spec.stream, spec.durable);
            return Ok(Err(Error::Differs { what: "durable", name, difference: differences.join("; ") }));
        }
        let durable = Durable::create(tables, stream, spec, now.wall)?;
        let origin = durable.origin.clone();
        self.add(durable);
        Ok(Ok(origin))
    }

    pub(super) fn delete_stream(
        &mut self,
        tables: &mut Tables<'_>,
        name: &str,
    ) -> Result<Result<(), Error>, Fault> {
        let Some(id) = self.streams.values().find(|s| s.name == name).map(Stream::id) else {
            return Ok(Err(Error::Gone { what: "stream", name: name.to_owned() }));
        };
        if name == OURS {
            return Ok(Err(Error::Refused(format!("the stream {OURS} is the bus's own"))));
        }
        let durables: BTreeSet<DurableId> =
            self.durables.values().filter(|d| d.stream() == id).map(Durable::id).collect();
        for durable in durables {
            self.remove_durable(tables, durable)?;
        }
        self.streams.remove(&id);
        tables.delete_stream(name, id)?;
        Ok(Ok(()))
    }

    pub(super) fn delete_message(
        &mut self,
        tables: &mut Tables<'_>,
        stream: &str,
        sequence: u64,
    ) -> Result<Result<bool, Error>, Fault> {
        match self.streams.values_mut().find(|s| s.name == stream) {
            Some(stream) => stream.delete(tables, sequence).map(Ok),
            None => Ok(Err(Error::Gone { what: "stream", name: stream.to_owned() })),
        }
    }

    pub(super) fn delete_durable(
        &mut self,
        tables: &mut Tables<'_>,
        stream: &str,
        durable: &str,
    ) -> Result<Result<(), Error>, Fault> {
        let found = self.durables.values().find(|d| d.origin.stream == stream && d.origin.durable == durable);
        let Some(id) = found.map(Durable::id) else {
            return Ok(Err(Error::Gone { what: "durable", name: format!("{stream}/{durable}") }));
        };
        self.remove_durable(tables, id)?;
        Ok(Ok(()))
    }

    /// Its subscribers notice, since nobody will send to them any more.
    fn remove_durable(&mut self, tables: &mut Tables<'_>, id: DurableId) -> Result<(), Fault> {
        let Some(durable) = self.durables.remove(&id) else { return Ok(()) };
        self.origins.remove(&durable.origin.id);
        tables.delete_durable(durable.stream(), &durable.origin.durable, id)
    }
}
