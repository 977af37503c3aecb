//! Label selectors: `app=web,tier in (front, back),!legacy,weight>10`.

use super::BadSelector;
use crate::model::{name, object::TextMap};
use std::{fmt, iter::Peekable, str::CharIndices};

/// One term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// `key=value`, `key==value`, `key in (…)`: the label is one of these.
    In(String, Vec<String>),
    /// `key!=value`, `key notin (…)`: the label is none of these, or absent.
    NotIn(String, Vec<String>),
    /// `key`: the label is there.
    Exists(String),
    /// `!key`: it is not.
    Absent(String),
    /// `key>number`: the label is a whole number of 64 bits that is greater.
    Greater(String, i64),
    /// `key<number`: it is one that is less.
    Less(String, i64),
}

impl Requirement {
    fn holds(&self, labels: &TextMap) -> bool {
        let number = |key: &String| labels.get(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::Absent(key) => !labels.contains_key(key),
            Self::Greater(key, bound) => number(key).is_some_and(|value| value > *bound),
            Self::Less(key, bound) => number(key).is_some_and(|value| value < *bound),
        }
    }
}

/// A label selector: all of its terms must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(pub Vec<Requirement>);

impl LabelSelector {
    /// Reads one; the empty text selects everything.
    pub fn parse(text: &str) -> Result<Self, BadSelector> {
        let mut parser = Parser { tokens: tokens(text).into_iter().peekable() };
        let mut found = Vec::new();
        if parser.peek() == &Token::End {
            return Ok(Self(found));
        }
        loop {
            found.push(parser.requirement()?);
            match parser.next() {
                (_, Token::End) => return Ok(Self(found)),
                (_, Token::Comma) => {}
                other => return Err(unexpected(&other, "a comma or the end")),
            }
        }
    }

    /// Whether it selects an object with these labels.
    pub fn matches(&self, labels: &TextMap) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A key, a value, or one of the words `in` and `notin`: which, its place says.
    Word(String),
    /// `=` and `==`.
    Equal,
    NotEqual,
    Not,
    Greater,
    Less,
    Open,
    Close,
    Comma,
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "{word:?}"),
            Self::Equal => f.write_str("'='"),
            Self::NotEqual => f.write_str("'!='"),
            Self::Not => f.write_str("'!'"),
            Self::Greater => f.write_str("'>'"),
            Self::Less => f.write_str("'<'"),
            Self::Open => f.write_str("'('"),
            Self::Close => f.write_str("')'"),
            Self::Comma => f.write_str("','"),
            Self::End => f.write_str("the end"),
        }
    }
}

/// A token, and where it begins: the number of its first character, from 1.
type Placed = (usize, Token);

fn unexpected((place, token): &Placed, wanted: &str) -> BadSelector {
    BadSelector(format!("found {token} at character {place}, expected {wanted}"))
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

fn is_special(character: char) -> bool {
    matches!(character, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

/// Every character is of a token or blank between them; the last token is the end.
fn tokens(text: &str) -> Vec<Placed> {
    let mut found = Vec::new();
    let mut characters = text.char_indices().peekable();
    let mut place = 0;
    while let Some((begin, character)) = characters.next() {
        place += 1;
        let first = place;
        let mut also = |wanted: char, characters: &mut Peekable<CharIndices<'_>>| {
            let there = characters.next_if(|(_, next)| *next == wanted).is_some();
            place += usize::from(there);
            there
        };
        let token = match character {
            blank if is_blank(blank) => continue,
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            '>' => Token::Greater,
            '<' => Token::Less,
            '!' if also('=', &mut characters) => Token::NotEqual,
            '!' => Token::Not,
            '=' => {
                also('=', &mut characters);
                Token::Equal
            }
            first => {
                let mut end = begin + first.len_utf8();
                while let Some((at, next)) = characters.next_if(|(_, next)| !is_blank(*next) && !is_special(*next)) {
                    end = at + next.len_utf8();
                    place += 1;
                }
                Token::Word(text[begin..end].to_owned())
            }
        };
        found.push((first, token));
    }
    found.push((place + 1, Token::End));
    found
}

struct Parser {
    tokens: Peekable<std::vec::IntoIter<Placed>>,
}

impl Parser {
    fn peek(&mut self) -> &Token {
        self.tokens.peek().map_or(&Token::End, |(_, token)| token)
    }

    fn next(&mut self) -> Placed {
        match self.tokens.peek() {
            Some((place, Token::End)) => (*place, Token::End), // it stays
            Some(_) | None => self.tokens.next().unwrap_or((0, Token::End)),
        }
    }

    fn requirement(&mut self) -> Result<Requirement, BadSelector> {
        let mut first = self.next();
        let absent = first.1 == Token::Not;
        if absent {
            first = self.next();
        }
        let (place, Token::Word(key)) = first else { return Err(unexpected(&first, "a label's key, or '!' and a key")) };
        check_key(place, &key)?;
        if absent {
            return Ok(Requirement::Absent(key));
        }
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Ok(Requirement::Exists(key));
        }
        let operator = self.next();
        match &operator.1 {
            Token::Equal => Ok(Requirement::In(key, vec![self.value()?])),
            Token::NotEqual => Ok(Requirement::NotIn(key, vec![self.value()?])),
            Token::Greater => Ok(Requirement::Greater(key, self.number()?)),
            Token::Less => Ok(Requirement::Less(key, self.number()?)),
            Token::Word(word) if word == "in" => Ok(Requirement::In(key, self.set()?)),
            Token::Word(word) if word == "notin" => Ok(Requirement::NotIn(key, self.set()?)),
            Token::Word(_) | Token::Not | Token::Open | Token::Close | Token::Comma | Token::End => {
                Err(unexpected(&operator, "one of =, ==, !=, in, notin, > and <"))
            }
        }
    }

    /// What stands after `=`: a word, or nothing, which is the empty value.
    fn value(&mut self) -> Result<String, BadSelector> {
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            (place, Token::Word(value)) => check_value(place, value),
            other => Err(unexpected(&other, "a value")),
        }
    }

    fn number(&mut self) -> Result<i64, BadSelector> {
        let found = self.next();
        match &found.1 {
            Token::Word(word) => word.parse().ok().filter(|_| word.bytes().all(|byte| byte.is_ascii_digit())),
            Token::Equal
            | Token::NotEqual
            | Token::Not
            | Token::Greater
            | Token::Less
            | Token::Open
            | Token::Close
            | Token::Comma
            | Token::End => None,
        }
        .ok_or_else(|| unexpected(&found, "a whole number from 0 of at most 64 bits"))
    }

    /// What stands after `in`. Nothing between two commas, or between one and a parenthesis, is the empty value; nothing
    /// between the parentheses at all is refused.
    fn set(&mut self) -> Result<Vec<String>, BadSelector> {
        let open = self.next();
        if open.1 != Token::Open {
            return Err(unexpected(&open, "'('"));
        }
        if let Some(close) = self.tokens.next_if(|(_, token)| *token == Token::Close) {
            return Err(unexpected(&close, "a value: the set must not be empty"));
        }
        let mut values = Vec::new();
        loop {
            let value = if matches!(self.peek(), Token::Comma | Token::Close) {
                String::new()
            } else {
                match self.next() {
                    (place, Token::Word(value)) => check_value(place, value)?,
                    other => return Err(unexpected(&other, "a value, ',' or ')'")),
                }
            };
            if !values.contains(&value) {
                values.push(value);
            }
            match self.next() {
                (_, Token::Comma) => {}
                (_, Token::Close) => return Ok(values),
                other => return Err(unexpected(&other, "',' or ')'")),
            }
        }
    }
}

fn check_key(place: usize, key: &str) -> Result<(), BadSelector> {
    let fault = name::labels("selector", &TextMap::from([(key.to_owned(), String::new())])).into_iter().next();
    fault.map_or(Ok(()), |fault| Err(BadSelector(format!("at character {place}: {}", fault.message))))
}

fn check_value(place: usize, value: String) -> Result<String, BadSelector> {
    match name::label_value(&value) {
        None => Ok(value),
        Some((_, rule)) => Err(BadSelector(format!("at character {place}: a label value {rule}"))),
    }
}
