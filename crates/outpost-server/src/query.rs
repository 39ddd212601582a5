//! Query parameters: each route takes the ones it knows, each with its bound; what is left over is an
//! error that names it.

use std::ops::RangeInclusive;

use outpost_types::ApiError;
use outpost_types::limits::LIST_LIMIT_MAX;

use crate::explain::shown_name;
use crate::form::{self, FORM_FIELDS_COUNT_MAX, FormError};

/// Largest number of any parameter: the largest of the format that the document gives them, `int64`.
const NUMBER_MAX: u64 = i64::MAX.unsigned_abs();

/// The parameters of one request that were not taken yet.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let Some(query) = query else {
            return Ok(Self(Vec::new()));
        };
        form::parse(query.as_bytes()).map(Self).map_err(|error| match error {
            FormError::TooMany => ApiError::field(
                "query",
                format!("There are more than {FORM_FIELDS_COUNT_MAX} query parameters."),
            ),
            FormError::NotText => {
                ApiError::field("query", "The query has a broken % escape or is no UTF-8 text.")
            }
        })
    }

    /// Whether a parameter of this name was sent.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// A text of 1 to `bytes_max` bytes.
    pub(crate) fn text(
        &mut self,
        name: &str,
        bytes_max: usize,
    ) -> Result<Option<String>, ApiError> {
        let Some(value) = self.take(name)? else {
            return Ok(None);
        };
        if (1..=bytes_max).contains(&value.len()) {
            return Ok(Some(value));
        }
        Err(ApiError::field(name, format!("`{name}` must be 1 to {bytes_max} bytes.")))
    }

    /// A whole number within `bounds`.
    pub(crate) fn number(
        &mut self,
        name: &str,
        bounds: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.take(name)? else {
            return Ok(None);
        };
        value
            .parse()
            .ok()
            .filter(|number| value.bytes().all(|b| b.is_ascii_digit()) && bounds.contains(number))
            .filter(|number| *number <= NUMBER_MAX)
            .map(Some)
            .ok_or_else(|| out_of_bounds(name, &bounds))
    }

    /// The size of a page.
    pub(crate) fn page_limit(&mut self) -> Result<Option<u32>, ApiError> {
        let limit = self.number("limit", 1..=u64::from(LIST_LIMIT_MAX))?;
        Ok(limit.and_then(|limit| u32::try_from(limit).ok()))
    }

    /// `true` or `false`; `false` when absent.
    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.take(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ApiError::field(name, format!("`{name}` must be true or false."))),
        }
    }

    /// Refuses what no one took, by name.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                let name = shown_name(name);
                Err(ApiError::field(
                    name.clone(),
                    format!("There is no query parameter `{name}` here."),
                )
                .with_hint("GET /openapi.json lists the parameters of every address."))
            }
        }
    }

    fn take(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let Some(at) = self.0.iter().position(|(known, _)| known == name) else {
            return Ok(None);
        };
        let (_, value) = self.0.remove(at);
        if self.has(name) {
            return Err(ApiError::field(name, format!("`{name}` was given more than once.")));
        }
        Ok(Some(value))
    }
}

/// The error of a number outside `bounds`, or of what is no number.
pub(crate) fn out_of_bounds(name: &str, bounds: &RangeInclusive<u64>) -> ApiError {
    let message = if *bounds.end() == u64::MAX {
        format!("`{name}` must be a whole number, {} or more.", bounds.start())
    } else {
        format!("`{name}` must be a whole number from {} to {}.", bounds.start(), bounds.end())
    };
    ApiError::field(name, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_names_its_field() {
        let field = |result: Result<(), ApiError>| result.unwrap_err().field.unwrap();
        let query = |text| Query::parse(Some(text)).unwrap();
        assert_eq!(field(query("x%0Ay=1").finish()), "x?y");
        for bad in
            ["n=", "n=5", "n=0", "n=+1", "n=-1", "n=1.0", "n=99999999999999999999999", "n=1&n=1"]
        {
            assert_eq!(field(query(bad).number("n", 1..=4).map(drop)), "n", "{bad}");
        }
        assert_eq!(query("n=4").number("n", 1..=4).unwrap(), Some(4));
        for bad in ["f", "f=1", "f=TRUE"] {
            assert_eq!(field(query(bad).flag("f").map(drop)), "f", "{bad}");
        }
        assert!(query("f=true").flag("f").unwrap());
        assert_eq!(field(query("t=").text("t", 2).map(drop)), "t");
        assert_eq!(field(query("t=%C3%A9%C3%A9").text("t", 3).map(drop)), "t");
        assert_eq!(field(Query::parse(Some("a=%ff")).map(drop)), "query");
    }
}
