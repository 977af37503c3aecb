//! Routes that know themselves: what is served can be listed, and so compared with what is documented.
//!
//! axum's router cannot be asked for its routes. This one is built with the same words, and remembers each path and method
//! that it hands on; OpenAPI's test holds the two lists against each other.

use super::AppState;
use axum::{Router, handler::Handler, routing::MethodRouter};

/// Paths with their methods.
#[derive(Debug, Default)]
pub struct Routes {
    router: Router<AppState>,
    served: Vec<(String, &'static str)>,
}

impl Routes {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// These, and a path with these methods.
    #[must_use]
    pub fn route(mut self, path: &str, methods: Methods) -> Self {
        self.served.extend(methods.names.into_iter().map(|name| (path.to_owned(), name)));
        self.router = self.router.route(path, methods.router);
        self
    }

    /// These and others.
    #[must_use]
    pub fn merge(mut self, others: Self) -> Self {
        self.served.extend(others.served);
        self.router = self.router.merge(others.router);
        self
    }

    /// Each path, with each method that it takes, in lower case as OpenAPI writes it.
    pub fn served(&self) -> &[(String, &'static str)] {
        &self.served
    }

    /// As a router.
    pub fn into_router(self) -> Router<AppState> {
        self.router
    }
}

/// The methods of a path.
#[derive(Debug, Default)]
pub struct Methods {
    router: MethodRouter<AppState>,
    names: Vec<&'static str>,
}

impl Methods {
    /// And `GET`.
    #[must_use]
    pub fn get<H: Handler<T, AppState>, T: 'static>(self, handler: H) -> Self {
        Self { router: self.router.get(handler), names: [self.names, vec!["get"]].concat() }
    }

    /// And `POST`.
    #[must_use]
    pub fn post<H: Handler<T, AppState>, T: 'static>(self, handler: H) -> Self {
        Self { router: self.router.post(handler), names: [self.names, vec!["post"]].concat() }
    }

    /// And `PUT`.
    #[must_use]
    pub fn put<H: Handler<T, AppState>, T: 'static>(self, handler: H) -> Self {
        Self { router: self.router.put(handler), names: [self.names, vec!["put"]].concat() }
    }

    /// And `PATCH`.
    #[must_use]
    pub fn patch<H: Handler<T, AppState>, T: 'static>(self, handler: H) -> Self {
        Self { router: self.router.patch(handler), names: [self.names, vec!["patch"]].concat() }
    }

    /// And `DELETE`.
    #[must_use]
    pub fn delete<H: Handler<T, AppState>, T: 'static>(self, handler: H) -> Self {
        Self { router: self.router.delete(handler), names: [self.names, vec!["delete"]].concat() }
    }
}

/// A path's `GET`.
pub fn get<H: Handler<T, AppState>, T: 'static>(handler: H) -> Methods {
    Methods::default().get(handler)
}

/// A path's `POST`.
pub fn post<H: Handler<T, AppState>, T: 'static>(handler: H) -> Methods {
    Methods::default().post(handler)
}

/// A path's `PUT`.
pub fn put<H: Handler<T, AppState>, T: 'static>(handler: H) -> Methods {
    Methods::default().put(handler)
}
