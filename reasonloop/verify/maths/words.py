"""Words that answers are written with: units, separators, names of functions, and phrases that mean the same."""

from __future__ import annotations

FUNCTIONS = frozenset(
    (
        "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc asin acos atan sinh cosh tanh coth ln log "
        "lg exp sqrt abs floor ceil gcd lcm max min"
    ).split()
)

APPLIED = frozenset(
    (
        "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth ln exp sqrt abs floor "
        "ceil"
    ).split()
)
CONSTANTS = {"pi": "pi", "infty": "oo"}
GREEK = frozenset(
    (
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi "
        "omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell hbar"
    ).split()
)
UNSUPPORTED = frozenset(
    (
        "int iint sum prod lim partial nabla oint begin end gcd lcm max min sup inf det dim deg angle triangle forall "
        "exists mathbb cup cap setminus subset emptyset overline bar dot ddot underbrace overbrace stackrel perp "
        "parallel odot oplus"
    ).split()
)
"""Commands of mathematics that isn't calculated here"""

SEPARATORS = {"and": "and", "or": "or"}

_UNITS = {
    "m": "meter meters metre metres m",
    "cm": "centimeter centimeters centimetre centimetres cm cms",
    "mm": "millimeter millimeters millimetre millimetres mm",
    "km": "kilometer kilometers kilometre kilometres km kms",
    "nm": "nanometer nanometers nm",
    "in": "inch inches in",
    "ft": "foot feet ft",
    "yd": "yard yards yd yds",
    "mi": "mile miles mi",
    "g": "gram grams gramme grammes g gm",
    "kg": "kilogram kilograms kg kgs",
    "mg": "milligram milligrams mg",
    "lb": "pound pounds lb lbs",
    "oz": "ounce ounces oz",
    "t": "ton tons tonne tonnes",
    "s": "second seconds sec secs s",
    "ms": "millisecond milliseconds ms",
    "min": "minute minutes min mins",
    "h": "hour hours hr hrs h",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years yr yrs",
    "L": "liter liters litre litres L",
    "mL": "milliliter milliliters millilitre millilitres mL ml",
    "gal": "gallon gallons gal",
    "acre": "acre acres",
    "ha": "hectare hectares ha",
    "$": "dollar dollars usd buck bucks",
    "cent": "cent cents",
    "EUR": "euro euros eur EUR",
    "GBP": "gbp GBP quid",
    "Rs": "rupee rupees Rs inr",
    "yuan": "yuan rmb cny",
    "deg": "degree degrees deg",
    "degF": "fahrenheit Fahrenheit",
    "degC": "celsius Celsius centigrade",
    "rad": "radian radians rad",
    "N": "newton newtons",
    "J": "joule joules",
    "W": "watt watts",
    "V": "volt volts",
    "A": "ampere amperes amp amps",
    "Pa": "pascal pascals Pa",
    "K": "kelvin kelvins",
    "Hz": "hertz Hz",
    "mol": "mole moles mol",
    "mi h": "mph",
    "km h": "kmh kph kmph",
    "dm": "dm decimeter decimeters decimetre decimetres",
    "erg": "erg ergs",
    "kWh": "kWh",
    "tsp": "tsp teaspoon teaspoons",
    "tbsp": "tbsp tablespoon tablespoons",
    "rpm": "rpm",
    "mi gal": "mpg",
    "cc": "cc",
    "ohm": "ohm ohms",
    "%": "percent pct percentage percents",
    "kW": "kW kilowatt kilowatts",
    "eV": "eV",
    "u": "unit units",
}
UNIT_OF = {word: unit for unit, words in _UNITS.items() for word in words.split()}
"""Spelling -> the unit's own sign"""
UNIT_OF |= {word.capitalize(): unit for word, unit in list(UNIT_OF.items()) if len(word) > 2}
UNIT_OF |= {
    word.upper(): unit for word, unit in list(UNIT_OF.items()) if word in ("usd", "cm", "km", "kg", "inr", "eur")
}

LETTER_UNITS = frozenset("mgshdlLtNJWVACFcol")
"""Letters that are units behind a number, where nothing else is a letter"""

SHAPES = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}

CURRENCY = frozenset(("$", "EUR", "GBP", "Rs", "yuan"))

EXPLAINS = frozenset(("because", "since"))
"""What stands behind them is no part of an answer"""

LEADING = frozenset(
    (
        "there ans option choice point points interval coordinates the final answer result solution value total sum "
        "probability area number therefore thus hence so is are be "
        "equals equal to given by about approximately approx roughly around exactly just simply only clearly now then "
        "also indeed that we get have it its about of"
    ).split()
)
"""Words in front of a value that say nothing of it"""

FILLER = frozenset(
    (
        "a an the there is are was be it does do has have its this that of in on only just such exactly number function "
        "functions integer integers value values therefore thus hence so clearly simply equation system exists"
    ).split()
)
"""Words without which an answer in words is the same answer"""

MEANINGS = {
    "infinite solutions": "infinitely many",
    "infinitely many": "infinitely many",
    "empty": "none", "empty set": "none", "no solution": "none", "no solutions": "none", "no real solution": "none",
    "no real solutions": "none", "none": "none", "no": "no", "not exist": "dne", "dne": "dne", "undefined": "undefined",
    "infinity": "infinity", "infinite": "infinity", "real numbers": "reals", "reals": "reals",
    "infinitely many solutions": "infinitely many", "all reals": "reals",
    "positive infinity": "infinity",
}  # fmt: skip
"""Phrases without their filler -> what they mean"""

NUMBERS = {
    word: value
    for value, word in enumerate(
        (
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
            "sixteen seventeen eighteen nineteen twenty"
        ).split()
    )
}

MONTHS = frozenset(
    (
        "january february march april may june july august september october november december jan feb mar apr jun "
        "jul aug sep sept oct nov dec"
    ).split()
)

MULTIPLES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1_000,
    "lakh": 10**5,
    "million": 10**6,
    "crore": 10**7,
    "billion": 10**9,
    "trillion": 10**12,
}
TENS = {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}


def in_words(words: list[str]) -> int | None:
    """The number that some words say ("forty-two", "three hundred"), or None."""
    total = current = 0
    for word in words:
        if word in NUMBERS:
            current += NUMBERS[word]
        elif word in TENS:
            current += TENS[word]
        elif word == "hundred" and current:
            current *= 100
        elif word in MULTIPLES and current:
            total, current = total + current * MULTIPLES[word], 0
        elif word != "and":
            return None
    return total + current if words else None


JUDGING = frozenset(
    (
        "is was are wrong incorrect not false maybe perhaps probably possibly halves thirds quarters fifths sixths "
        "eighths tenths hundredths thousandths half third quarter factorial otherwise plus minus times"
    ).split()
)
"""Words that say something of a value beside it"""
HEDGES = frozenset(
    ("maybe", "perhaps", "possibly", "probably", "either", "not", "nor", "neither", "vs", "versus", "but")
)
"""Words with which a value is no answer"""

KNOWN_WORDS = frozenset(
    (
        "yes no true false odd even none all both only never left right not nor but vs the of per and or for are was "
        "has unit units feet foot inch mile yard gram year days day week hour ways way base each cent usd pct acre volt "
        "watt mole sets june july may jan feb mar apr jun jul aug sep sept oct nov dec"
    ).split()
)
"""Bare words of two to four letters that are no products of variables"""
