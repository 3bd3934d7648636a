"""The lexicon of behaviours in natural language: regular expressions, each with an example that it finds.

What each behaviour means (`evidence/behaviours/sample.jsonl` is labelled by hand by these definitions):

- backtracking: the writer gives up the line of work, or goes back to an earlier point to go on from there;
- self_correction: the writer says that something they wrote is wrong, or replaces it;
- verification: the writer checks, or sets out to check, a result, a step or a claim that is already there;
- alternative: the writer takes up, or proposes, another method, case or attempt.

Patterns see one sentence at a time, in lower case, with plain apostrophes and single spaces. Every quantifier is bounded,
so that the time is linear in the length of the text. They look for the writer's own voice ("let me check"), because the
people in word problems check their lists, go back home and make mistakes too.
"""

from __future__ import annotations

from typing import NamedTuple

BEHAVIOURS = ("backtracking", "self_correction", "verification", "alternative")

# The start of a clause: of the sentence, after punctuation, or after a word that opens a thought.
_OPENERS = "so|and|then|but|ok|okay|hm{1,9}|no|now|well|oh|ah|or|maybe|perhaps|wait|just|also|next|again"
_CLAUSE = rf"(?:^|[,;:.(–—-] ?|\b(?:{_OPENERS}) )"
_START = r"(?:^|[.;:] ?)(?:(?:ok|okay|so|and|but|now|or|hm{1,9})[,]? )?"
_LET = (
    r"\b(?:let me|let's|lets|let us|i'll|i will|we'll|i'd better|i should|we should|i need to|we need to|i have to"
    r"|we have to)"
)
_MAY = r"\b(?:i can|we can|i could|we could|one can|one could|you can|you could|i might|we might)"
_ADVERB = r"(?:(?:just|also|now|quickly|first|still|then|briefly|really|simply|actually|always|instead|better) ){0,2}"
_OWN = "approach|idea|path|route|line|method|branch|way|plan|attempt|guess"
_THIS = rf"\b(?:this|that|it|which|(?:this|that|the|my) (?:\w{{1,20}} )?(?:{_OWN}))"
_NOT = r"(?:doesn't|does not|isn't|is not|won't|will not|didn't|did not|wasn't|can't|cannot|couldn't)"
_WAY = r"(?:approach|method|strategy|angle|interpretation|possibility|idea|technique|perspective|formula|tack|argument)"
_CHECK = r"(?:double[- ]?check|re-?check|cross-?check|check|re-?verify|verify|confirm|validate)"
_CHECKING = r"(?:(?:double[- ]?|cross-?|re-?)?checking|verifying|confirming|testing)"
_COMPARED = r"(?:with|against|the|this|that|these|our|my|if|whether|it|for|again|on|both|each|all)"
_SAID = r"(?:said|wrote|claimed|stated|thought|assumed)"
_DID = r"(?:counted|added|included|subtracted|used|treated|taken|took|multiplied|divided|applied|had|got)"
_SLIPPED = (
    r"(?:misread|misunderstood|miscounted|miscalculated|misinterpreted|mixed up|overlooked|mistyped|messed up|confused"
    r"|double[- ]counted|forgot)"
)
_ERROR = r"(?:mistake|error|slip|typo|blunder)"
_EASIER = r"(?:quicker|simpler|easier|faster|shorter|neater|cleaner|better|smarter)"
_SOLVE = (
    r"(?:solve|do|use|compute|find|get|see|write|count|think|try|look|consider|derive|work|start|begin|express|approach"
    r"|argue|view|reach|model|split|treat)"
)
_WRONG = r"(?:wrong\b|incorrect|illegal|invalid|not (?:quite )?(?:right|correct)|mistaken|an error|a mistake)"


class Phrase(NamedTuple):
    """One pattern."""

    behaviour: str
    cues: str
    """Texts, apart by |, of which every match holds at least one: sentences without any are not searched"""
    example: str
    """A sentence that the pattern finds"""
    pattern: str


_B, _S, _V, _A = BEHAVIOURS
_TO = (
    r"(?:the (?:start|beginning|step|point|case|equation|other|original|first|previous|last)\b|where\b|step\b|eq\b"
    r"|square one|\(|\d|my\b|our\b)"
)

# fmt: off
LEXICON: tuple[Phrase, ...] = (
    Phrase(_B, "back", "Let's go back to 6 and 4.",
          rf"{_LET} {_ADVERB}(?:go|step|move|jump|take (?:it|that|this)) (?:all the way )?back\b"),
    Phrase(_B, "backtrack|rewind|undo|revert|retreat|return to", "I need to backtrack.",
          rf"{_LET} {_ADVERB}(?:backtrack|rewind|undo|revert|retreat|return to)\b"),
    Phrase(_B, "go|return|revert|rewind", "We return to the other case.",
          rf"{_CLAUSE}(?:(?:i|we) )?(?:go|going|return|returning|revert|reverting|rewind"
          rf"|rewinding) (?:back )?to {_TO}"),
    Phrase(_B, "back to", "So it's back to square one.",
          r"\bback to (?:the drawing board|square one|step\b|equation|eq\b|\(\d|where (?:i|we) )"),
    Phrase(_B, "back to", "Back to 9, 8 and 4.",
          rf"{_START}back to (?:the\b|where\b|\d{{1,9}}(?:,| and\b))"),
    Phrase(_B, "back", "So go back.",
          rf"(?:^|[,;:.] ?)(?:so )?(?:go )?back[.!]?$|{_CLAUSE}back up and\b"),
    Phrase(_B, "undo", "Undo the last step.",
          rf"{_CLAUSE}undo(?:ing)?(?: (?:the|that|this|it|my|last)\b|[.!,]|$)"),
    Phrase(_B, "backtrack", "Here we backtrack.",
          r"\b(?:i|we|to|must) backtrack\b"),
    Phrase(_B, "dead", "This is a dead end.",
          r"\bdead[- ]end\b|\b(?:branch|path) is dead\b"),
    Phrase(_B, "work|lead|help|get|anywhere", "This doesn't lead anywhere.",
          rf"{_THIS} (?:\w{{1,20}} )?{_NOT} (?:really |quite |seem to |going to |be )?(?:work|working|lead|leading"
          r"|help|helping|get (?:us|me|anywhere)|go anywhere|going anywhere)\b"),
    Phrase(_B, "nowhere|in circles", "This leads nowhere.",
          r"\b(?:gets?|getting|leads?|leading|goes|going) (?:us |me )?nowhere\b|\bin circles\b"),
    Phrase(_B, "stuck|a wall", "I'm stuck here.",
          r"\b(?:i'm|i am|we're|we are) stuck\b|\b(?:i|we) (?:hit|ran into) a wall\b"),
    Phrase(_B, "start|begin", "Let me start over.",
          rf"(?:{_LET} {_ADVERB}|{_CLAUSE})(?:start|starting|begin|beginning) (?:all )?(?:over|again|afresh|fresh"
          r"|anew|from scratch|from the beginning)\b"),
    Phrase(_B, "drop|abandon|discard|scrap|reject|dismiss|give|throw|rule out", "I'll abandon this version.",
          rf"(?:{_LET}|\bi|\bwe) {_ADVERB}(?:drop|abandon|discard|scrap|reject|dismiss|give up|give|throw away"
          r"|rule out) (?:on )?(?:this|that|it|the (?:idea|approach|attempt|branch|assumption))\b"),
    Phrase(_B, "never|scrap|forget", "Never mind that idea.",
          rf"{_CLAUSE}never ?mind\b|{_CLAUSE}(?:scrap|forget) (?:this|that|it)\b"),
    Phrase(_S, "wait", "Wait, that's 24.",
          r"^(?:(?:hm{1,9}|oh|no|ah|but|uh|ok|okay|hey)[,.]? )?wait[,.!—–-]{0,3} ?(?:no\b|actually|that's|that is"
          r"|this is|it's\b|its\b|i (?:mis|forgot|made|should|said|wrote|counted|think i)|the (?:problem"
          r"|question) (?:says|said|asks)|we (?:forgot|should|already))"),
    Phrase(_S, "hold on|hang on", "Hold on, there are two of them.",
          rf"{_CLAUSE}(?:hold on|hang on)\b"),
    Phrase(_S, "actually,", "Actually, she has three.",
          r"(?:^|[.;:–—-] ?|\b(?:no|oh|wait|hm{1,9}), )actually,"),
    Phrase(_S, "wrong|incorrect|illegal|invalid|not|mistake|error", "Hmm, that's not right.",
          r"\b(?:that's|thats|that is|this is|that was|this was|i was|i am|i'm|which is|it is|it's|(?:step|line"
          rf"|move|calculation) (?:is|was)) (?:all |clearly |obviously |going |just |definitely )?{_WRONG}"),
    Phrase(_S, "be right|be correct|be true|be it", "That can't be right.",
          r"\b(?:can't|cannot|can not|couldn't) be (?:right|correct|true|it)\b"),
    Phrase(_S, "can't be|cannot be", "That can't be: ages are positive.",
          r"(?:^|[.;:,] ?)(?:but |so |hm{1,9},? )?(?:that|this) (?:can't|cannot) be[:;,.!]"),
    Phrase(_S, "mistake|error|slip|typo|blunder", "I made a mistake in the second step.",
          r"\b(?:i|i've|i have|we|we've) (?:made|must have made|may have made|might have made) (?:a|an|some"
          rf"|the) (?:\w{{1,20}} )?{_ERROR}"),
    Phrase(_S, "mistake|error|slip|typo|blunder|i went wrong", "I see my mistake.",
          r"\b(?:i see|i found|there's|there is|here's|here is|spotted) (?:my|the|a|an"
          rf"|where) (?:\w{{1,20}} )?(?:{_ERROR}|i went wrong)"),
    Phrase(_S, "my mistake|my bad|by", "My mistake.",
          r"\bmy (?:mistake|bad)\b|\boff[- ]by[- ]one\b"),
    Phrase(_S, "my |our ", "My first estimate was too low.",
          r"\b(?:my|our) (?:earlier|previous|first|last|initial|original) (?:\w{1,20} ){1,2}(?:was|is|were"
          r"|are) (?:\w{1,20} ){0,2}(?:wrong|off|incorrect|mistaken|too|not)\b"),
    Phrase(_S, "mis|mixed|overlooked|messed|confused|counted|forgot", "I misread the question.",
          rf"\bi (?:must have |may have |have |had |wrongly |mistakenly |accidentally )?{_SLIPPED}"),
    Phrase(_S, "wrongly|mistakenly|incorrectly|accidentally", "I wrongly used the radius.",
          r"\bi (?:wrongly|mistakenly|incorrectly|accidentally)\b"),
    Phrase(_S, "twice|wrong|backwards|the other way", "I counted the 3 twice.",
          rf"\b(?:i|i've|i have|we|we've) {_DID} [^.]{{1,50}} (?:twice|the wrong way|wrong|backwards"
          r"|the other way (?:round|around))\b"),
    Phrase(_S, "but|however|yet|wrong|instead|should", "I wrote 12 above, but it is 21.",
          rf"\bi {_SAID} [^.]{{1,60}}\b(?:but|however|yet|wrong|instead|should)\b"),
    Phrase(_S, "oops|correction|scratch|strike", "Oops, that's 7.",
          rf"{_CLAUSE}(?:oops|whoops|correction\b ?[:,]|scratch that|strike that|scratch the last)"),
    Phrase(_S, "sorry|apologies", "Sorry, that should be 3.",
          r"(?:^|[.;,] ?)(?:sorry|apologies|my apologies)[,:!] ?(?:i|that|it|the|this|we)\b"),
    Phrase(_S, "correct|fix|redo|revise|rectify|amend|restate|rewrite", "Let me fix that.",
          rf"{_LET} {_ADVERB}(?:correct|fix|redo|revise|rectify|amend|restate|rewrite) (?:this|that|it|the|my)\b"),
    Phrase(_S, "be ", "That should be 1/3 instead of 1/2.",
          r"\b(?:it|that|this|which|there|answer|total|sign|result|value) (?:really |actually )?(?:should|must"
          r"|needs to|has to) (?:actually |really |instead )?be [^.]{1,40}\b(?:instead|rather than|not)\b"),
    Phrase(_S, "have been", "That should have been 9.",
          r"\b(?:it|that|this|which|answer|total|sign|result|value) (?:really |actually )?should have been\b"),
    Phrase(_S, "on second|on reflection|on closer", "On second thought, it is odd.",
          r"\bon (?:second thoughts?|reflection|closer inspection)\b"),
    Phrase(_S, "no", "12 - 5 = 8, no, 7.",
          r"\d[,;.]? no[,:;] |(?:^|[,;.] )no,? (?:wait|it's|its|that's|thats)\b"),
    Phrase(_V, "check|verify|confirm|valid|sure", "Let me check this result.",
          rf"(?:{_LET}|{_MAY}|\bi|\bwe|\bi want to|\bi'd like to|\bit remains to) {_ADVERB}(?:{_CHECK}"
          r"|sanity[- ]check|make sure|be sure)\b"),
    Phrase(_V, "test|re|trace|run|plug|see", "Let me recompute the tax.",
          rf"{_LET} {_ADVERB}(?:test|recompute|recalculate|re-?count|re-?read|re-?examine|trace|run (?:through|the"
          r"|this)|plug|see (?:if|whether) (?:this|that|it|its|it's|the (?:answer|result)))\b"),
    Phrase(_V, "to ", "To verify, add the parts again.",
          rf"{_CLAUSE}(?:just )?to (?:{_CHECK}|make sure|be sure|be safe)\b"),
    Phrase(_V, "ing", "Checking the sum, it is 51.",
          rf"{_CLAUSE}{_CHECKING}(?: ?[:,]| {_COMPARED}\b)"),
    Phrase(_V, "verification|check|proof|test", "Check: 9 * 4 = 36.",
          r"(?:^|[.;] ?)(?:quick |final |and )?(?:verification|check|double[- ]?check|proof"
          r"|test)(?: of the (?:result|answer))? ?[:=]"),
    Phrase(_V, "check ", "So 36, check 36/4 = 9.",
          r"(?:^|[.;,] ?)(?:ok |so |now )?check (?:this|that|it|again|\d{1,9}|with)\b"),
    Phrase(_V, "check|test", "As a sanity check, add them.",
          r"\b(?:sanity|cross|quick|consistency|plausibility)[- ](?:check|test)|\bdouble[- ]check(?:ing)?\b"),
    Phrase(_V, "back in", "Plugging x = 4 back into the equation gives 7.",
          r"\b(?:plug|plugging|substitute|substituting|put|putting|insert|inserting) (?:[^ ]{1,20} ){1,6}back in"),
    Phrase(_V, "substitut|plug|insert", "Substituting these values into both equations, they hold.",
          r"\b(?:substitut(?:e|ing)|plug(?:ging)?|insert(?:ing)?) (?:this|these|the|our) (?:values?|solutions?"
          r"|answers?|results?|numbers?) in(?:to)?\b"),
    Phrase(_V, "?", "Does that make sense?",
          r"\b(?:does|is|are|do|did) (?:that|this|it|these|they|my answer|the answer) (?:really |actually |all "
          r"|even )?(?:make sense|right|correct|consistent|add up|hold|hold up|work|work out|plausible|reasonable"
          r"|true|match|fit)\b[^.]{0,80}\?"),
    Phrase(_V, "match|agree|fits|consistent|checks out|is as", "This matches the total in the problem.",
          r"\b(?:which|this|that|it|and) (?:also |indeed |perfectly )?(?:matches|agrees|checks out|fits with"
          r"|is consistent with|is as (?:required|expected|desired))\b"),
    Phrase(_V, ", as |indeed", "84 + 3 is indeed 87.",
          r", as (?:required|expected|desired|needed|claimed)\b|\b(?:is|are) indeed\b|\bindeed (?:equals|equal"
          r"|gives|holds)\b"),
    Phrase(_V, "✓|✔|☑|✅", "23 * 17 = 391 ✓",
          r"\w[^\w]{0,5}[✓✔☑✅]"),
    Phrase(_V, "through", "Tracing through the loop, i is 3.",
          r"\b(?:trace|tracing|step|stepping) through (?:it|this|the)? ?(?:with|example|code|loop)"),
    Phrase(_A, "alternatively", "Alternatively, count the complement.",
          r"(?:^|[;:.] ?|\b(?:or|but|and|so), ?)(?:or )?alternatively\b"),
    Phrase(_A, "another|different|alternative|second|new|other|one more", "Let's try a different approach.",
          rf"\b(?:another|a different|an alternative|a second|a new|some other|one more) (?:\w{{1,20}} )?{_WAY}\b"),
    Phrase(_A, "way", "Another way to see this is a picture.",
          rf"\b(?:another|a different|an alternative|a second|one more|an? {_EASIER}) way (?:to (?:see|solve|do"
          r"|think|look|approach|find|get|compute|count|write|express|reach|prove)\b|of\b|is\b|would\b|here\b|:)"),
    Phrase(_A, "er ", "A quicker route is to pair them.",
          rf"\b{_EASIER} (?:way|approach|method|route|idea|solution) (?:is|would be|might be|may be|here)\b"),
    Phrase(_A, "way|approach|method|trick|shortcut", "There is a second method.",
          r"\bthere(?:'s| is| are| might be| may be| could be) (?:also |perhaps |surely |probably )?(?:a|an|another"
          r"|other) (?:\w{1,20} )?(?:way|ways|approach|method|methods|trick|shortcut)\b"),
    Phrase(_A, "thing|where", "Let me try something else.",
          r"\b(?:try|trying|do|consider) (?:something|somewhere|anything) (?:else|different)\b"),
    Phrase(_A, "different|other|new", "I'll try another pair.",
          rf"(?:{_LET}|\btry|\btrying) (?:try |use |take )?(?:a different|another|the other|other|a new)\b"),
    Phrase(_A, "from", "Look at it from another angle.",
          r"\bfrom (?:a different|another|a new) (?:angle|side|perspective|point of view)\b"),
    Phrase(_A, "what|how about", "What if we start at the end?",
          rf"{_CLAUSE}(?:what if (?:we|i|it|instead)\b|(?:what|how) about\b)"),
    Phrase(_A, "instead|rather than", "Instead of adding, let's multiply.",
          r"^(?:instead of|rather than) [^.]{1,80}, ?(?:let|we|i|one|a|just)\b|(?:^|[;.] ?)instead, "),
    Phrase(_A, "instead", "I'll use the discriminant instead.",
          rf"(?:{_LET}|{_MAY}|\btry|\btrying|\bwe|\bi|\band) (?:\w{{1,20}} )?(?:use|using|try|trying|do|work|count"
          rf"|compute|think|consider|start|multiply|divide|add|subtract|\d)[^.]{{0,60}}\binstead\b"),
    Phrase(_A, "also|equally|as well|alternatively", "One could also use similar triangles.",
          rf"(?:{_MAY}|\bcould|\bcan) (?:also|equally well|equally|just as well|as well"
          rf"|alternatively) (?:just )?{_SOLVE}\b"),
    Phrase(_A, "or ", "Or we could use a table.",
          r"(?:^|[;.] ?)(?:or|or maybe|or perhaps) (?:we|i|one|you) (?:can|could|might|may)\b"),
    Phrase(_A, "maybe|perhaps", "Maybe we should factor it.",
          rf"{_CLAUSE}(?:maybe|perhaps) (?:i|we) (?:should|could|can|need to|might)\b"),
    Phrase(_A, "maybe|perhaps", "Maybe multiply first.",
          r"^(?:maybe|perhaps) (?:try|use|multiply|divide|add|subtract|combine|start|it's better|it is better)\b"),
    Phrase(_A, "proof|solution|method|approach|way", "Second proof.",
          r"(?:^|[;.] ?)(?:the )?(?:second|alternative|another|other) (?:proof|solution|method|approach|way)[.:,]"),
    Phrase(_A, "instead|switch", "Suppose instead that n is odd.",
          r"\b(?:suppose|assume|consider) instead\b|\bswitch(?:ing)? to (?:a|another|using)\b"),
)
# fmt: on
