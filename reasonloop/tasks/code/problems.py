"""The bundled programming problems, by rising difficulty.

The body is the canonical solution; the tests call the function.
"""

from __future__ import annotations

from typing import NamedTuple


class Written(NamedTuple):
    """One problem as it is written down here."""

    header: str
    """The function's, between `def` and the colon"""
    description: str
    body: str
    """Lines, indented by 4"""
    tests: str

    @property
    def name(self) -> str:
        return self.header.partition("(")[0]

    @property
    def prompt(self) -> str:
        return f'def {self.header}:\n    """{self.description}"""\n'


PROBLEMS = (
    Written(
        "double(n: int) -> int",
        "Return twice n.",
        "    return 2 * n\n",
        "assert double(4) == 8\nassert double(0) == 0\nassert double(-3) == -6\nassert double(10**20) == 2 * 10**20",
    ),
    Written(
        "last_character(text: str) -> str",
        "Return the last character of text, or '' if text is empty.",
        "    return text[-1:]\n",
        "assert last_character('stone') == 'e'\nassert last_character('x') == 'x'\nassert last_character('') == ''",
    ),
    Written(
        "is_even(n: int) -> bool",
        "Return True if n is even, otherwise False.",
        "    return n % 2 == 0\n",
        "assert is_even(2) is True\nassert is_even(7) is False\nassert is_even(0) is True\nassert is_even(-1) is False",
    ),
    Written(
        "larger(a: int, b: int) -> int",
        "Return the larger of a and b.",
        "    return a if a > b else b\n",
        "assert larger(1, 2) == 2\nassert larger(5, -5) == 5\nassert larger(3, 3) == 3\nassert larger(-2, -1) == -1",
    ),
    Written(
        "sum_to(n: int) -> int",
        "Return 1 + 2 + ... + n, or 0 if n is less than 1.",
        "    total = 0\n    for i in range(1, n + 1):\n        total += i\n    return total\n",
        "assert sum_to(4) == 10\nassert sum_to(1) == 1\nassert sum_to(0) == 0\nassert sum_to(-3) == 0\n"
        "assert sum_to(100) == 5050",
    ),
    Written(
        "count_vowels(text: str) -> int",
        "Return how many letters of text are one of a, e, i, o, u, in either case.",
        "    return sum(letter in 'aeiou' for letter in text.lower())\n",
        "assert count_vowels('Banana') == 3\nassert count_vowels('xyz') == 0\nassert count_vowels('') == 0\n"
        "assert count_vowels('AEIOU u') == 6",
    ),
    Written(
        "without_duplicates(items: list) -> list",
        "Return the items without repetitions, each where it first stood.",
        "    found = []\n    for item in items:\n        if item not in found:\n            found.append(item)\n"
        "    return found\n",
        "assert without_duplicates([3, 1, 3, 2, 1]) == [3, 1, 2]\nassert without_duplicates([]) == []\n"
        "assert without_duplicates(['b', 'a', 'b']) == ['b', 'a']\nassert without_duplicates([[1], [1]]) == [[1]]",
    ),
    Written(
        "is_palindrome(text: str) -> bool",
        "Return whether the letters of text read the same in both directions. Case and all other characters don't count.",
        "    letters = [c.lower() for c in text if c.isalpha()]\n    return letters == letters[::-1]\n",
        "assert is_palindrome('Never odd or even') is True\nassert is_palindrome('stone') is False\n"
        "assert is_palindrome('') is True\nassert is_palindrome('A man, a plan!') is False\n"
        "assert is_palindrome('a1b2a') is True",
    ),
    Written(
        "digit_sum(n: int) -> int",
        "Return the sum of the decimal digits of n; the sign doesn't count.",
        "    return sum(int(digit) for digit in str(abs(n)))\n",
        "assert digit_sum(0) == 0\nassert digit_sum(1999) == 28\nassert digit_sum(-45) == 9\n"
        "assert digit_sum(10**30) == 1",
    ),
    Written(
        "second_largest(numbers: list[int]) -> int | None",
        "Return the second largest of the different numbers, or None if there are fewer than two of them.",
        "    different = sorted(set(numbers))\n    return different[-2] if len(different) > 1 else None\n",
        "assert second_largest([4, 9, 9, 1]) == 4\nassert second_largest([5, 5]) is None\n"
        "assert second_largest([]) is None\nassert second_largest([-1, -7]) == -7",
    ),
    Written(
        "greatest_common_divisor(a: int, b: int) -> int",
        "Return the greatest common divisor of two numbers that aren't negative and not both 0.",
        "    while b:\n        a, b = b, a % b\n    return a\n",
        "assert greatest_common_divisor(12, 18) == 6\nassert greatest_common_divisor(7, 5) == 1\n"
        "assert greatest_common_divisor(0, 9) == 9\nassert greatest_common_divisor(9, 0) == 9\n"
        "assert greatest_common_divisor(2**60, 2**40) == 2**40",
    ),
    Written(
        "word_counts(text: str) -> dict[str, int]",
        "Return how often each word of text occurs. Words are separated by white space and compared in lower case.",
        "    counts = {}\n    for word in text.lower().split():\n        counts[word] = counts.get(word, 0) + 1\n"
        "    return counts\n",
        "assert word_counts('the cat The dog') == {'the': 2, 'cat': 1, 'dog': 1}\nassert word_counts('') == {}\n"
        "assert word_counts(' a\\ta\\n') == {'a': 2}",
    ),
    Written(
        "primes_below(n: int) -> list[int]",
        "Return all prime numbers less than n, in ascending order.",
        "    return [p for p in range(2, n) if all(p % d for d in range(2, int(p**0.5) + 1))]\n",
        "assert primes_below(12) == [2, 3, 5, 7, 11]\nassert primes_below(2) == []\nassert primes_below(3) == [2]\n"
        "assert primes_below(26) == [2, 3, 5, 7, 11, 13, 17, 19, 23]\nassert len(primes_below(1000)) == 168",
    ),
    Written(
        "run_lengths(text: str) -> list[tuple[str, int]]",
        "Return the runs of equal characters in text, each as (character, length), in order.",
        "    runs = []\n    for c in text:\n        if runs and runs[-1][0] == c:\n"
        "            runs[-1] = (c, runs[-1][1] + 1)\n        else:\n            runs.append((c, 1))\n"
        "    return runs\n",
        "assert run_lengths('aaab') == [('a', 3), ('b', 1)]\nassert run_lengths('') == []\n"
        "assert run_lengths('abba') == [('a', 1), ('b', 2), ('a', 1)]",
    ),
    Written(
        "roman_numeral(n: int) -> str",
        "Return n (from 1 to 3999) as a Roman numeral.",
        "    parts = [(1000, 'M'), (900, 'CM'), (500, 'D'), (400, 'CD'), (100, 'C'), (90, 'XC'), (50, 'L'),\n"
        "             (40, 'XL'), (10, 'X'), (9, 'IX'), (5, 'V'), (4, 'IV'), (1, 'I')]\n    result = ''\n"
        "    for value, letters in parts:\n        result += letters * (n // value)\n        n %= value\n"
        "    return result\n",
        "assert roman_numeral(1) == 'I'\nassert roman_numeral(1994) == 'MCMXCIV'\n"
        "assert roman_numeral(3888) == 'MMMDCCCLXXXVIII'\n"
        "assert roman_numeral(449) == 'CDXLIX'",
    ),
    Written(
        "balanced(text: str) -> bool",
        "Return whether the brackets (), [] and {} in text are balanced and properly nested. Other characters don't count.",
        "    closing = {')': '(', ']': '[', '}': '{'}\n    open_brackets = []\n    for c in text:\n"
        "        if c in '([{':\n            open_brackets.append(c)\n        elif c in closing:\n"
        "            if not open_brackets or open_brackets.pop() != closing[c]:\n                return False\n"
        "    return not open_brackets\n",
        "assert balanced('a(b[c]{d})') is True\nassert balanced('(]') is False\nassert balanced('([)]') is False\n"
        "assert balanced('((') is False\nassert balanced('}') is False\nassert balanced('') is True",
    ),
    Written(
        "merge_intervals(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]",
        "Join closed intervals (start, end) that overlap or touch, and return what remains, in ascending order.",
        "    merged = []\n    for start, end in sorted(intervals):\n        if merged and start <= merged[-1][1]:\n"
        "            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))\n        else:\n"
        "            merged.append((start, end))\n    return merged\n",
        "assert merge_intervals([(5, 7), (1, 3), (3, 4)]) == [(1, 4), (5, 7)]\nassert merge_intervals([]) == []\n"
        "assert merge_intervals([(1, 10), (2, 3)]) == [(1, 10)]\n"
        "assert merge_intervals([(1, 2), (3, 4)]) == [(1, 2), (3, 4)]",
    ),
    Written(
        "to_base(n: int, base: int) -> str",
        "Return n (not negative) written in the base (2 to 16), with the digits 0123456789abcdef.",
        "    digits = ''\n    while True:\n        n, digit = divmod(n, base)\n"
        "        digits = '0123456789abcdef'[digit] + digits\n        if n == 0:\n            return digits\n",
        "assert to_base(10, 2) == '1010'\nassert to_base(0, 7) == '0'\nassert to_base(255, 16) == 'ff'\n"
        "assert to_base(3**20, 3) == '1' + '0' * 20",
    ),
    Written(
        "transpose(rows: list[list]) -> list[list]",
        "Return the columns of a table whose rows all have the same length, each as a list.",
        "    return [list(column) for column in zip(*rows)]\n",
        "assert transpose([[1, 2, 3], [4, 5, 6]]) == [[1, 4], [2, 5], [3, 6]]\nassert transpose([]) == []\n"
        "assert transpose([[7]]) == [[7]]\nassert transpose([[1], [2]]) == [[1, 2]]",
    ),
    Written(
        "best_sum(numbers: list[int]) -> int",
        "Return the largest sum of consecutive numbers of the list; at least one number has to be taken.",
        "    best = current = numbers[0]\n    for number in numbers[1:]:\n"
        "        current = max(number, current + number)\n"
        "        best = max(best, current)\n    return best\n",
        "assert best_sum([1, -2, 3, 4, -1]) == 7\nassert best_sum([-5]) == -5\nassert best_sum([-3, -1, -2]) == -1\n"
        "assert best_sum([2, -1, 2]) == 3\nassert best_sum(list(range(-10, 11))) == 55",
    ),
    Written(
        "edit_distance(a: str, b: str) -> int",
        "Return how many characters have to be inserted, removed or replaced, at least, to turn a into b.",
        "    row = list(range(len(b) + 1))\n    for i, x in enumerate(a, 1):\n        last, row[0] = row[0], i\n"
        "        for j, y in enumerate(b, 1):\n"
        "            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))\n    return row[-1]\n",
        "assert edit_distance('kitten', 'sitting') == 3\nassert edit_distance('', 'abc') == 3\n"
        "assert edit_distance('x', 'x') == 0\n"
        "assert edit_distance('flaw', 'lawn') == 2\nassert edit_distance('abc', '') == 3",
    ),
    Written(
        "change_ways(amount: int, coins: list[int]) -> int",
        "Return in how many ways the amount can be paid with coins of these (different) values, each used any number of\n"
        "    times. The order of the coins doesn't count.",
        "    ways = [1] + [0] * amount\n    for coin in coins:\n        for total in range(coin, amount + 1):\n"
        "            ways[total] += ways[total - coin]\n    return ways[amount]\n",
        "assert change_ways(5, [1, 2, 5]) == 4\nassert change_ways(0, [3]) == 1\nassert change_ways(3, [2]) == 0\n"
        "assert change_ways(100, [1, 5, 10, 25, 50]) == 292\nassert change_ways(7, []) == 0",
    ),
    Written(
        "shortest_path(grid: list[str], start: tuple[int, int], end: tuple[int, int]) -> int | None",
        "Return how many steps up, down, left or right lead from start to end, at least, or None if no way does. Both are\n"
        "    (row, column); rows are texts of equal length in which '#' is a wall.",
        "    seen, frontier, steps = {start}, [start], 0\n    while frontier:\n        if end in frontier:\n"
        "            return steps\n        reached = []\n        for row, column in frontier:\n"
        "            for place in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):\n"
        "                inside = 0 <= place[0] < len(grid) and 0 <= place[1] < len(grid[0])\n"
        "                if inside and place not in seen and grid[place[0]][place[1]] != '#':\n"
        "                    seen.add(place)\n                    reached.append(place)\n"
        "        frontier, steps = reached, steps + 1\n    return None\n",
        "assert shortest_path(['...', '.#.', '...'], (0, 0), (2, 2)) == 4\n"
        "assert shortest_path(['.#.'], (0, 0), (0, 2)) is None\n"
        "assert shortest_path(['.'], (0, 0), (0, 0)) == 0\n"
        "assert shortest_path(['..#..', '.##.#', '.....'], (0, 1), (0, 4)) == 9",
    ),
    Written(
        "evaluate(expression: str) -> int",
        "Return the value of an expression of whole numbers, +, -, *, brackets and spaces. * binds tighter than + and -;\n"
        "    a sign in front of a number or a bracket may occur. Don't use eval or exec.",
        "    tokens = []\n    for c in expression.replace(' ', ''):\n"
        "        if c.isdigit() and tokens and tokens[-1].isdigit():\n            tokens[-1] += c\n        else:\n"
        "            tokens.append(c)\n    tokens.append('')\n\n    def factor():\n        token = tokens.pop(0)\n"
        "        if token in '+-':\n            return factor() * (-1 if token == '-' else 1)\n"
        "        if token == '(':\n            value = total()\n            tokens.pop(0)\n            return value\n"
        "        return int(token)\n\n    def product():\n        value = factor()\n        while tokens[0] == '*':\n"
        "            tokens.pop(0)\n            value *= factor()\n        return value\n\n    def total():\n"
        "        value = product()\n        while tokens[0] and tokens[0] in '+-':\n"
        "            value += product() if tokens.pop(0) == '+' else -product()\n        return value\n\n"
        "    return total()\n",
        "assert evaluate('2 + 3 * 4') == 14\nassert evaluate('(2 + 3) * 4') == 20\nassert evaluate('10 - 2 - 3') == 5\n"
        "assert evaluate('-(7)') == -7\nassert evaluate('2 * -3 + 100') == 94\nassert evaluate('((42))') == 42",
    ),
)
