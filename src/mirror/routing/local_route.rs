//! A worker's own references to the routes of a table.
//!
//! All workers share the routes. Each request holds its route, so cloning an `Arc` would write to a cache line of
//! every other worker, twice per request. A worker clones an `Rc` of its own instead.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use crate::mirror::routing::routes::{Route, Routes};

/// A route, as one worker refers to it. A clone touches only memory of this worker.
#[derive(Clone)]
#[expect(
    clippy::redundant_allocation,
    reason = "the count of the `Arc` is what workers must not share"
)]
pub struct LocalRoute(Rc<Arc<Route>>);

impl LocalRoute {
    pub(crate) fn new(route: &Arc<Route>) -> LocalRoute {
        LocalRoute(Rc::new(Arc::clone(route)))
    }
}

impl Deref for LocalRoute {
    type Target = Route;

    fn deref(&self) -> &Route {
        &self.0
    }
}

/// The routes of one table, by [`Route::index`].
pub(crate) struct LocalRoutes(Vec<LocalRoute>);

impl LocalRoutes {
    pub(crate) fn new(routes: &Routes) -> LocalRoutes {
        LocalRoutes(routes.all().iter().map(LocalRoute::new).collect())
    }

    /// This worker's reference to `route`, which is of the same table.
    pub(crate) fn reference(&self, route: &Arc<Route>) -> LocalRoute {
        let own = self.0.get(route.index);
        own.map_or_else(|| LocalRoute::new(route), LocalRoute::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_request_changes_no_count_that_workers_share() {
        let key = |letter: &str| letter.repeat(32);
        let text = format!(
            "keys:\n- {{inbound: 'http://{a}@m/1', outbound: ['http://{a}@o/1']}}\n\
             - {{inbound: 'http://{b}@m/2', outbound: ['http://{b}@o/2']}}",
            a = key("a"),
            b = key("b")
        );
        let config = Config::parse(&text, "c.yml", std::iter::empty()).unwrap();
        let routes = Routes::new(2, &config, None);
        let workers = [LocalRoutes::new(&routes), LocalRoutes::new(&routes)];
        for letter in ["a", "b"] {
            let route = routes.find(key(letter).as_bytes()).unwrap();
            let shared = Arc::strong_count(route);
            let requests = workers.iter().map(|worker| worker.reference(route));
            let requests: Vec<_> = requests.flat_map(|route| [route.clone(), route]).collect();
            assert_eq!(Arc::strong_count(route), shared);
            for request in requests {
                assert!(std::ptr::eq(&raw const *request, Arc::as_ptr(route)));
            }
        }
    }
}
