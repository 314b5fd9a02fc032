//! What is written: messages, cells and records of the sizes the bus writes.

use crate::store::{Op, Table, message_key};

const SUBJECTS: u64 = 5_000;
const CELLS: u64 = 20_000;

/// xorshift64: the load is the same in every run.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// What does not compress, as files and pictures do not.
fn noise(rng: &mut Rng, bytes: usize) -> Vec<u8> {
    let mut out: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| rng.next().to_be_bytes()).collect();
    out.truncate(bytes);
    out
}

/// Half field names and fixed text, half hexadecimal digits: what JSON with ids and hashes compresses like.
fn text(rng: &mut Rng, bytes: usize) -> Vec<u8> {
    const FIXED: &str = r#"Nats-Msg-Id: {"event":"planning.story.transitioned","id":"#;
    let mut out = String::with_capacity(bytes + 80);
    while out.len() < bytes {
        out.push_str(FIXED);
        for _ in 0..4 {
            out.push_str(&format!("{:016x}", rng.next()));
        }
    }
    out.truncate(bytes);
    out.into_bytes()
}

fn subject_key(stream: u32, rng: &mut Rng) -> Vec<u8> {
    let mut key = stream.to_be_bytes().to_vec();
    key.extend_from_slice(format!("planning.story.{:06}.transitioned", rng.next() % SUBJECTS).as_bytes());
    key
}

/// The size of an ordinary message, headers included.
pub const MESSAGE: usize = 400;

/// A message and its place in the subject index. Long messages are noise.
pub fn append(stream: u32, seq: u64, bytes: usize, rng: &mut Rng, group: &mut Vec<Op>) {
    let body = if bytes > MESSAGE { noise(rng, bytes) } else { text(rng, bytes) };
    group.push(Op::Put(Table::Messages, message_key(stream, seq).to_vec(), body));
    group.push(Op::Put(Table::Subjects, subject_key(stream, rng), seq.to_be_bytes().to_vec()));
}

/// Retention: the oldest message makes room.
pub fn expire(stream: u32, seq: u64, group: &mut Vec<Op>) {
    group.push(Op::Delete(Table::Messages, message_key(stream, seq).to_vec()));
}

fn cell(number: u64, rng: &mut Rng, group: &mut Vec<Op>) {
    // Spread like the hashes that cells are named by.
    let mut key = Rng::new(number + 1);
    let key = [key.next().to_be_bytes(), key.next().to_be_bytes()].concat();
    group.push(Op::Put(Table::Cells, key, text(rng, 300)));
}

/// One event's commit: its cell, two effects in a stream at its limit, the consumer's record.
pub fn commit(stream: u32, seq: u64, limit: u64, consumer: u64, rng: &mut Rng, group: &mut Vec<Op>) {
    let number = rng.next() % CELLS;
    cell(number, rng, group);
    for seq in [seq, seq + 1] {
        append(stream, seq, MESSAGE, rng, group);
        expire(stream, seq - limit, group);
    }
    group.push(Op::Put(Table::Consumers, consumer.to_be_bytes().to_vec(), text(rng, 100)));
}

/// What a store holds before commits are timed: every cell, and a stream at its limit.
pub fn fill(stream: u32, limit: u64, rng: &mut Rng) -> Vec<Op> {
    let mut group = Vec::new();
    for number in 0..CELLS {
        cell(number, rng, &mut group);
    }
    for seq in 1..=limit {
        append(stream, seq, MESSAGE, rng, &mut group);
    }
    group
}
