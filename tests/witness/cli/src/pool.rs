//! The same work on many things, several at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, bail};

/// As many at once as the host has CPUs.
#[must_use]
pub fn host_cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Does `work` on each of `items`, on `at_once` of them at a time, and returns what came of each, in their order. `work` gets the number of its worker, for files of its
/// own; `done` is told of each item when it is done, in the order in which that happens.
///
/// # Errors
/// The first that `work` met; what was under way is finished, the rest is left.
pub fn each<T: Sync, R: Send>(
    at_once: usize,
    items: &[T],
    work: impl Fn(usize, &T) -> Result<R> + Sync,
    mut done: impl FnMut(&T, &R) + Send,
) -> Result<Vec<R>> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new((Vec::new(), &mut done)));
    let worker = |worker: usize| -> Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return Ok(()) };
            let result = work(worker, item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
            let (results, done) = &mut *results.lock().unwrap_or_else(PoisonError::into_inner);
            done(item, &result);
            results.push((index, result));
        }
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..at_once).map(|number| scope.spawn(move || worker(number))).collect();
        let joined = running.into_iter().map(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")));
        joined.collect::<Result<()>>()
    })?;
    let (mut results, _) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::ensure;

    #[test]
    fn good_results_come_in_the_order_of_the_items() {
        let mut seen = 0;
        let doubled = each(2, &[1, 2, 3, 4, 5], |_, number| Ok(number * 2), |_, _| seen += 1).expect("nothing fails");
        assert_eq!((doubled, seen), (vec![2, 4, 6, 8, 10], 5));
    }

    #[test]
    fn bad_the_first_error_ends_it() {
        let refuses = |_: usize, number: &u32| -> Result<()> {
            ensure!(*number != 3, "not {number}");
            Ok(())
        };
        let error = each(2, &[1, 2, 3, 4, 5], refuses, |_, ()| {}).expect_err("3 is refused");
        assert_eq!(error.to_string(), "not 3");
    }
}
