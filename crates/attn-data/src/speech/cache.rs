//! The features read last, up to so many bytes.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Features by key; what came first goes first.
pub(super) struct Cache<K> {
    limit_bytes: usize,
    held: Mutex<Held<K>>,
}

struct Held<K> {
    by_key: HashMap<K, Arc<[f32]>>,
    order: VecDeque<K>,
    bytes: usize,
}

impl<K: Eq + Hash + Copy> Cache<K> {
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            held: Mutex::new(Held {
                by_key: HashMap::new(),
                order: VecDeque::new(),
                bytes: 0,
            }),
        }
    }

    /// What is held of a key, else what `make` gives. Other threads are not kept waiting by it: two of them can make the
    /// same.
    pub fn get_or<E>(&self, key: K, make: impl FnOnce() -> Result<Vec<f32>, E>) -> Result<Arc<[f32]>, E> {
        if let Some(features) = self.held().by_key.get(&key) {
            return Ok(features.clone());
        }
        let features: Arc<[f32]> = make()?.into();
        self.held().insert(key, features.clone(), self.limit_bytes);
        Ok(features)
    }

    /// A thread that panicked has left the maps whole: nothing between two changes of them can panic.
    fn held(&self) -> MutexGuard<'_, Held<K>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Copy> Held<K> {
    fn insert(&mut self, key: K, features: Arc<[f32]>, limit_bytes: usize) {
        let bytes = size_of_val(&*features);
        if bytes > limit_bytes || self.by_key.contains_key(&key) {
            return;
        }
        while self.bytes + bytes > limit_bytes
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some(gone) = self.by_key.remove(&oldest) {
                self.bytes -= size_of_val(&*gone);
            }
        }
        self.bytes += bytes;
        self.order.push_back(key);
        self.by_key.insert(key, features);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(cache: &Cache<u32>, key: u32, made: &mut u32) -> usize {
        let features = cache.get_or(key, || {
            *made += 1;
            Ok::<_, ()>(vec![0.0; 10])
        });
        features.unwrap().len()
    }

    #[test]
    fn what_was_read_last_is_not_made_again() {
        let cache = Cache::new(80);
        let mut made = 0;
        for key in [1, 2, 1, 2] {
            assert_eq!(get(&cache, key, &mut made), 10);
        }
        assert_eq!(made, 2);
        get(&cache, 3, &mut made);
        get(&cache, 2, &mut made);
        assert_eq!(made, 3, "2 is still held");
        get(&cache, 1, &mut made);
        assert_eq!(made, 4, "1 made room for 3");
    }

    #[test]
    fn without_room_everything_is_made_anew() {
        let cache = Cache::new(39);
        let mut made = 0;
        get(&cache, 1, &mut made);
        get(&cache, 1, &mut made);
        assert_eq!(made, 2);
    }

    #[test]
    fn what_fails_is_not_held() {
        let cache = Cache::<u32>::new(80);
        assert_eq!(cache.get_or(1, || Err("no")).unwrap_err(), "no");
        assert_eq!(get(&cache, 1, &mut 0), 10);
    }
}
