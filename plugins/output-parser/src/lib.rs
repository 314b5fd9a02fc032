//! output-parser
