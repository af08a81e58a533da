//! The runtime of unit tests: epoll, with timers.

use std::future::Future;

use crate::runtime::deadline_queue;

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
        .enable_timer()
        .build()
        .unwrap();
    runtime.block_on(async {
        deadline_queue::start();
        future.await
    })
}
