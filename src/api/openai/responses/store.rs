//! Responses that requests may continue or ask for, in memory, the latest ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use actix_web::web::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

use super::wire::response_of;
use crate::api::error::ApiError;
use crate::api::limits;

/// A bounded number of responses; those that nobody asked for the longest go first.
pub(in crate::api) struct Store {
    max_count: usize,
    max_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<String, Entry>,
    /// Ids by the last use.
    order: BTreeMap<u64, String>,
    /// Of all entries.
    bytes: usize,
    uses: u64,
}

struct Entry {
    stored: Arc<Stored>,
    used: u64,
}

/// A response, and what it answered.
pub(super) struct Stored {
    /// JSON, as it was sent.
    pub(super) response: Bytes,
    /// The request's own items: a JSON list.
    pub(super) input: Bytes,
    /// The response that the request continued.
    pub(super) previous: Option<String>,
}

impl Stored {
    /// Bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        const OVERHEAD: usize = 256;
        OVERHEAD + self.response.len() + self.input.len()
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new(limits::RESPONSES, limits::RESPONSE_BYTES)
    }
}

impl Store {
    fn new(max_count: usize, max_bytes: usize) -> Self {
        Self {
            max_count,
            max_bytes,
            kept: Mutex::default(),
        }
    }

    /// Keeps a response; one that is larger than the whole store is not kept.
    pub(super) fn insert(&self, id: &str, stored: Stored) {
        let bytes = stored.bytes();
        if bytes > self.max_bytes {
            tracing::warn!(id, bytes, "a response is too large to be stored");
            return;
        }
        let mut kept = self.kept.lock();
        kept.remove(id);
        while kept.entries.len() >= self.max_count || kept.bytes + bytes > self.max_bytes {
            let Some((_, oldest)) = kept.order.pop_first() else {
                break;
            };
            kept.remove(&oldest);
        }
        kept.bytes += bytes;
        let entry = Entry {
            stored: Arc::new(stored),
            used: 0,
        };
        kept.entries.insert(id.to_owned(), entry);
        kept.touch(id);
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Stored>> {
        self.kept.lock().touch(id)
    }

    /// Forgets a response; whether it was there.
    pub(super) fn remove(&self, id: &str) -> bool {
        self.kept.lock().remove(id)
    }

    /// The response and all those before it, oldest first. `last` is one that its connection remembers, by its id.
    pub(super) fn chain(&self, id: &str, last: Option<&(String, Arc<Stored>)>) -> Result<Vec<Arc<Stored>>, ApiError> {
        let mut chain: Vec<Arc<Stored>> = Vec::new();
        let mut next = Some(id.to_owned());
        while let Some(id) = next {
            // A chain is no longer than the store, so a longer one would be a circle.
            let stored = self.find(&id, last).filter(|_| chain.len() <= self.max_count);
            let stored = stored.ok_or_else(|| ApiError::no_previous_response(&id))?;
            next = stored.previous.clone();
            chain.push(stored);
        }
        chain.reverse();
        Ok(chain)
    }

    /// The responses with items that the items of `input` refer to, as far as they are here. `last` as in [`Store::chain`].
    pub(super) fn referenced(&self, input: &Value, last: Option<&(String, Arc<Stored>)>) -> Vec<Arc<Stored>> {
        let items = input.as_array().into_iter().flatten();
        let ids: BTreeSet<String> = items
            .filter(|item| item["type"] == "item_reference")
            .filter_map(|item| response_of(item["id"].as_str()?))
            .collect();
        ids.iter().filter_map(|id| self.find(id, last)).collect()
    }

    fn find(&self, id: &str, last: Option<&(String, Arc<Stored>)>) -> Option<Arc<Stored>> {
        match last {
            Some((last, stored)) if last == id => Some(stored.clone()),
            _ => self.get(id),
        }
    }
}

impl Kept {
    fn touch(&mut self, id: &str) -> Option<Arc<Stored>> {
        let entry = self.entries.get_mut(id)?;
        self.order.remove(&entry.used);
        self.uses += 1;
        entry.used = self.uses;
        self.order.insert(entry.used, id.to_owned());
        Some(entry.stored.clone())
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(entry) = self.entries.remove(id) else {
            return false;
        };
        self.order.remove(&entry.used);
        self.bytes -= entry.stored.bytes();
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::openai::responses::wire::{item_id, new_id};

    fn stored(bytes: usize, previous: Option<&str>) -> Stored {
        Stored {
            response: vec![b' '; bytes].into(),
            input: Bytes::new(),
            previous: previous.map(str::to_owned),
        }
    }

    #[test]
    fn the_latest_responses_stay() {
        let store = Store::new(3, 2000);
        for id in ["a", "b", "c"] {
            store.insert(id, stored(10, None));
        }
        assert!(store.get("a").is_some());
        store.insert("d", stored(10, None));
        assert!(store.get("b").is_none(), "the one that was not used");
        assert!(["a", "c", "d"].iter().all(|id| store.get(id).is_some()));
        // Bytes count, too: two go for one large.
        store.insert("e", stored(1300, None));
        assert!(store.get("a").is_none() && store.get("c").is_none());
        assert!(store.get("d").is_some() && store.get("e").is_some());
        store.insert("f", stored(3000, None));
        assert!(store.get("f").is_none() && store.get("e").is_some());
        assert!(store.remove("e") && !store.remove("e"));
        assert!(store.remove("d"));
        let kept = store.kept.lock();
        assert_eq!((kept.bytes, kept.order.len(), kept.entries.len()), (0, 0, 0));
    }

    #[test]
    fn a_response_that_comes_again_takes_the_place_of_the_first() {
        let store = Store::new(3, 2000);
        store.insert("a", stored(100, None));
        store.insert("a", stored(10, None));
        assert_eq!(store.kept.lock().bytes, stored(10, None).bytes());
        assert_eq!(store.kept.lock().order.len(), 1);
    }

    #[test]
    fn chains_are_followed_to_their_start() {
        let store = Store::new(8, 1 << 20);
        store.insert("a", stored(1, None));
        store.insert("b", stored(2, Some("a")));
        let last = ("c".to_owned(), Arc::new(stored(3, Some("b"))));
        let lengths =
            |chain: Vec<Arc<Stored>>| -> Vec<usize> { chain.iter().map(|stored| stored.response.len()).collect() };
        assert_eq!(lengths(store.chain("b", None).unwrap()), [1, 2]);
        assert_eq!(lengths(store.chain("c", Some(&last)).unwrap()), [1, 2, 3]);
        let unknown = store.chain("c", None).err().unwrap().to_string();
        assert!(unknown.contains("`c`"), "{unknown}");
        store.remove("a");
        assert!(store.chain("b", None).is_err());
        store.insert("x", stored(1, Some("x")));
        assert!(store.chain("x", None).is_err());
    }

    #[test]
    fn items_tell_their_response() {
        let store = Store::default();
        let [one, other] = [new_id("resp"), new_id("resp")];
        store.insert(&one, stored(1, None));
        let last = (other.clone(), Arc::new(stored(2, None)));
        let refer = |ids: &[&str]| -> Vec<usize> {
            let items = ids.iter().map(|id| json!({"type": "item_reference", "id": id}));
            let found = store.referenced(&items.collect(), Some(&last));
            let mut lengths: Vec<usize> = found.iter().map(|stored| stored.response.len()).collect();
            lengths.sort_unstable();
            lengths
        };
        assert_eq!(refer(&[&item_id("rs", &one, 0), &item_id("msg", &one, 1)]), [1]);
        assert_eq!(refer(&[&item_id("fc", &other, 2), &item_id("rs", &one, 0)]), [1, 2]);
        let nobody = item_id("rs", &new_id("resp"), 0);
        assert_eq!(refer(&[&nobody, "msg_1", "x", "", "rs_ä"]), [0; 0]);
    }
}
