//! Header mutations as a filter: where among the filters they happen is the Listener's to say.

use std::fmt;
use std::sync::Arc;

use http::{Uri, request};
use mesh_core::decode::HeaderMutationFilter as Decoding;
use mesh_core::error::{Code, Error};
use mesh_core::model::{FilterConfig, HeaderSteps, HttpFilter};
use mesh_core::route::format::FormatFacts;
use mesh_core::route::mutate::mutate_in_steps;
use mesh_core::route::query::mutate_query;

use super::{Filter, FilterFacts, FilterType, Verdict, config_of};
use crate::reply::Reply;

/// The header mutation filter: the Listener's mutations, and then those of each level.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeaderMutationFilterType;

impl<F: FilterFacts + Clone + Send + Sync + 'static> FilterType<F> for HeaderMutationFilterType {
    fn type_url(&self) -> &str {
        Decoding::TYPE_URL
    }

    fn build(&self, filter: &HttpFilter, overrides: &[Arc<dyn FilterConfig>]) -> Result<Arc<dyn Filter<F>>, Error> {
        let own = config_of::<HeaderSteps>(&filter.config, Decoding::TYPE_URL)?;
        let levels = overrides.iter().map(|level| config_of::<HeaderSteps>(level, Decoding::TYPE_URL));
        let mut levels = levels.collect::<Result<Vec<_>, Error>>()?;
        // Who comes last has the last word.
        if !own.most_specific_wins {
            levels.reverse();
        }
        levels.insert(0, own);
        Ok(Arc::new(Mutating { levels: levels.into() }))
    }
}

/// The filter of one route.
#[derive(Debug)]
struct Mutating {
    levels: Arc<[HeaderSteps]>,
}

impl Mutating {
    fn change<F: FilterFacts>(&self, request: &mut request::Parts, facts: &F) -> Result<(), Error> {
        let mut headers = request.headers.clone();
        for level in self.levels.iter() {
            mutate_in_steps(&level.request, &mut headers, &facts.format(request));
            if !level.query.is_empty() {
                let path = mutate_query(&level.query, &headers, &facts.format(request)).map_err(|error| bad(&error))?;
                let mut parts = std::mem::take(&mut request.uri).into_parts();
                parts.path_and_query = Some(path);
                request.uri = Uri::from_parts(parts).map_err(|error| bad(&error))?;
            }
        }
        request.headers = headers;
        Ok(())
    }
}

fn bad(error: &dyn fmt::Display) -> Error {
    Error::new(Code::UNSUPPORTED_ROUTE, format!("the query that the header mutation filter makes is none: {error}"))
}

impl<F: FilterFacts + Clone + Send + Sync + 'static> Filter<F> for Mutating {
    fn on_request(&self, request: &mut request::Parts, facts: &F) -> Verdict {
        // Values are made from the request as it came to this filter.
        let watches = self.levels.iter().any(|level| !level.response.is_empty());
        let asked = watches.then(|| request.clone());
        if self.levels.iter().any(|level| !(level.request.is_empty() && level.query.is_empty()))
            && let Err(error) = self.change(request, facts)
        {
            return Verdict::Reply(Box::new(Reply::of(&error)));
        }
        let Some(asked) = asked else { return Verdict::Continue };
        let (levels, facts) = (self.levels.clone(), facts.clone());
        Verdict::Watch(Box::new(move |response| {
            let facts = FormatFacts { status: Some(response.status), ..facts.format(&asked) };
            for level in levels.iter() {
                mutate_in_steps(&level.response, &mut response.headers, &facts);
            }
        }))
    }
}
