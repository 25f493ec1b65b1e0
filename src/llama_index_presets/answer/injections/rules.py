"""Rules of the detector of instructions: patterns, by family. Pure data; see `detector`."""

from __future__ import annotations

from typing import Final

from llama_index_presets.answer.injections import vocabulary as words

__all__ = ["RULES"]

RULES: Final[dict[str, tuple[str | tuple[str, str], ...]]] = {
    "override": (
        (
            "ignore disregard forget",
            r"\b(?:ignore|disregard|forget) (?:\w+ ){0,3}?(?:above|previous|prior|earlier|preceding|foregoing)\b(?! (?:value|version|request|header|connection|section|paragraph))",
        ),
        (
            "ignore disregard",
            r"\b(?:ignore|disregard) (?:the |this |any |all |every |their |that )?(?:users?|users?'s?|questions?|safety|security|ethic\w+) ?(?:rules|guidelines|polic\w+|questions?|quer\w+)?(?=[.,;:!\n]|$| and\b)",
        ),
        (
            "task objective instruction prompt goal mission polic guidelin role",
            r"\b(?:your|the) (?:\w+ )?(?:task|objective|goal|instructions?|mission|prompt|role|job|polic(?:y|ies)|guidelines) (?:has|have|had) (?:now )?(?:been )?(?:chang|updat|replac|revis|overrid|rewrit|reset)\w*|\bnew (?:task|objective|instructions?|prompt|directive|mission)s?\b\s*(?:[:=]|-{2,}|$)|\byou have (?:a|been given a) (?:new|different) (?:task|objective|goal|mission|instruction|role|job)|\bupdated your (?:\w+ )?(?:polic\w+|instructions?|prompt|guidelines)",
        ),
        (
            "instruction",
            r"\b(?:previous|prior|above|earlier|original) instructions? (?:was|were|is|are|have been) (?:wrong|incorrect|mistaken|outdated|invalid|void|fake|a test|cancel\w*)|\b(?:is|are|this is|here is|here are) (?:an? |the |your )?(?:real |new |true |actual )?instructions? (?:from|of|by|for) (?:the |your )?(?:users?|developers?|system|admin\w*|operator|you\b|assistant|model)",
        ),
        (
            words.DROPPING,
            rf"\b{words.DROP}\b{words.GAP}\b{words.EARLIER}\b{words.GAP}\b{words.ORDERS}\b(?! on the (?:label|package))",
        ),
        (
            words.DROPPING,
            rf"\b{words.DROP}\b{words.GAP}\b{words.ORDERS}\b{words.GAP}\b(?:you (?:were|are|have been|had been|got|received) (?:given|told|under|following)|given to you|above|so far|prior|that came before)\b",
        ),
        (
            words.DROPPING,
            rf"\b(?:ignore|disregard|forget|pay no attention to) (?:everything|anything|all|whatever|what)\b{words.GAP}\b(?:above|before|"
            rf"previous(?:ly)?|earlier|told|said|learned|prior|instructed|you know|written)\b",
        ),
        (
            words.DROPPING,
            r"\b(?:ignore|disregard|forget|override|bypass|skip|pay no attention to) (?:all |any |of |the |these |those |your )*(?:other )?(?:instructions|"
            r"prompts?|system (?:prompt|message)|passages|sources|guidelines|guardrails|directives|rules|users?'?s? ?(?:question|query|input|request)?)\b",
        ),
        (
            "instruction prompt directive task order objective mission goal",
            r"\b(?:new|updated|revised|real|actual|true|following|these) (?:system )?(?:instructions?|prompt|task|orders?|"
            r"objective|mission|goal)\b[^.!?\n]{0,30}(?:\bsupersedes?\b|\boverrides?\b|\breplaces?\b|\btakes? precedence\b|\bare as follows\b|"
            r"\bfor (?:you|the (?:ai|assistant|model))\b|\s*:\s*(?:you|answer|say|ignore|reply|respond|output|do not|always|tell))",
        ),
        (
            "supersed overrid precedence replac trump outrank",
            r"\b(?:supersedes?|overrides?|takes? precedence over|replaces?|trumps?|outranks?)\b[^.!?\n]{0,40}\b(?:(?:all|any|your|every) (?:other |previous |earlier |"
            r"prior )?(?:instructions?|prompts?|rules|guidelines)|system (?:prompt|message))\b",
        ),
        (
            "instruction rule prompt",
            r"\b(?:instructions?|rules?|prompts?)\b[^.!?\n]{0,30}\b(?:you (?:were|have been|got|received)|above|before this|so far)\b[^.!?\n]{0,40}"
            r"\b(?:no longer|void|obsolete|cancel+ed|revoked|invalid|do(?:es)? not apply|(?:is|are|was|were) (?:a test|over|suspended|wrong|lifted))",
        ),
        (
            "start&over begin&again clear&your reset&your wipe&your",
            r"\b(?:start over|begin again|clear your (?:memory|context|mind)|reset your(?:self)?|wipe your)\b",
        ),
    ),
    "role": (
        (
            "from&here you&are you&have&no with&no where&you you&can&now you&may&now",
            r"\bfrom here (?:on|onwards?)\b[^.!?\n]{0,30}\b(?:speak|answer|respond|reply|say|act|you)\b|\byou are (?:dan\b|compromised|hacked|pwned|an? (?:evil|unrestricted|unfiltered|uncensored|jailbroken|malicious|rogue|different) )|\b(?:you have|with|where you have|without any|that has|who has) no (?:restrictions|rules|limits|filters|guidelines|limitations|ethics|morals)\b|\byou (?:may|can) now (?:answer|say|do|ignore|reveal|act|speak|bypass)",
        ),
        (
            "you&are you're you&will&be you&shall&be",
            r"\b(?:you are|you're|you will be|you shall be) (?:now|no longer|hereby|henceforth)\b[^.!?\n]{0,60}",
        ),
        (
            "from&now from&this henceforth rest&of",
            rf"\b(?:from now on|from this (?:point|moment) (?:on|forward)|henceforth|for the rest of (?:this|the) (?:conversation|chat|session))\b{words.GAP}\b(?:you|your|{words.TELL})\b",
        ),
        (
            "pretend imagine behave roleplay role-play simulate you&are you're you&were you&have&no pirate unrestricted unfiltered evil uncensored amoral jailbr malicious dan root admin hacker terminal developer",
            r"\b(?:pretend|imagine|act|behave|roleplay|role-play|simulate|respond|answer|speak|write|talk)\b(?: that)?(?: to be| as if| as though| like| as| being)?\b[^.!?\n]{0,20}\b"
            r"(?:you are|you're|you were|you have no|a pirate|an? (?:unrestricted|unfiltered|evil|uncensored|amoral|different|jailbroken|malicious)|"
            r"(?:an? |the )?(?:dan|root|admin(?:istrator)?|hacker|developer mode|linux terminal|terminal))\b",
        ),
        (
            "role persona identity character mode",
            rf"\b(?:assume|adopt|take on|enter|switch to|play)\b{words.GAP}\b(?:the )?(?:role|persona|identity|character|mode)\b(?! in\b){words.GAP}\b(?:called|named|where|mode|without|who|that|which|with no|of an? (?:\w+ ){{0,2}}(?:spokes\w+|assistant|bot|ai|hacker|expert|system))\b",
        ),
        (
            "&mode",
            r"\b(?:developer|debug|god|sudo|admin|maintenance|unrestricted|jailbreak|dan|root) mode\b[^.!?\n]{0,40}\b(?:enabled?|activated?|on|active|engaged|unlocked|now)\b",
        ),
        (
            "&mode",
            r"\b(?:enable|activate|enter|engage|switch to|unlock|turn on) (?:the )?(?:developer|debug|god|sudo|admin|unrestricted|jailbreak|dan|root) mode\b",
        ),
        (
            "do&anything jailbr act&as",
            r"\bdo anything now\b|\bjailbr(?:eak|oken)\b|\bact as (?:dan|an? (?:ai|llm|language model|chatbot))\b",
        ),
        (
            "your&",
            r"\byour (?:new|real|true|only|sole) (?:name|role|identity|persona|task|job|goal|purpose|objective|mission|function) is\b",
        ),
    ),
    "impersonation": (
        (
            "{{ </doc --- === *** ###",
            r"\{\{\s*/?(?:system|user|assistant|instructions?)\s*\}\}|</?docs?\b[^<>\n]{0,20}>|[-=*#]{3,}\s*(?:system|admin|developer|new task|new instructions?|assistant|instructions?)\b",
        ),
        ("user: human:", r"\b(?:user|human)\s?:[^\n]{1,200}\s(?:assistant|ai|bot|model)\s?:"),
        ("admin system assistant developer", r"\[(?:admin|system|assistant|developer|root)\w*\]\s*:?"),
        (
            "<",
            r"<\|?\s*/?(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id|end_header_id|begin_of_text)\s*\|?>",
        ),
        (
            "[ <<",
            r"\[/?(?:inst|system|sys)\]|<<\s*/?sys\s*>>|\[(?:system|assistant|developer|user|admin)\s*(?:message|prompt|note|override|instructions?)?\s*\]\s*:?",
        ),
        (
            "system assistant developer",
            r"(?:^|[\n.!?>])\s*[#*=\-\s]*(?:system|assistant|developer)\s*(?:prompt|message|note|override|instructions?|update|notice|alert)?\s*[*]*\s*(?::|>|-{2,}|={2,})\s*[*]*\s*"
            r"(?:you|ignore|answer|from|do not|never|always|the (?:user|assistant|model)|disregard|reply|respond|say|please|new|all|output|override|forget|print|add|"
            r"include|tell|append|reveal|your|it|a?i\b)",
        ),
        (
            "begin end start",
            r"\b(?:begin|end|start)(?: of)?(?: the)? (?:system|hidden|secret|admin|developer|new|user|context|documents?|passages?|trusted)[ _-]*(?:prompt|message|instructions?|context|input|section|data|block|passages?)\b",
        ),
        (
            "<",
            r"</?\s*(?:context|passages?|documents?|sources?|instructions?|system|prompt|data|input|untrusted|user_input)\b[^<>\n]{0,40}>",
        ),
        (
            "##",
            r"#{2,}\s*(?:new |system |end of )?(?:instructions?|system|response|human|assistant|user|context|prompt)\b\s*:?",
        ),
        (
            "human: user: question: query: human&: user&: question&: query&:",
            r"(?:^|[\n.!?>])\s*(?:human|user|question|query)\s*:[^\n]{1,200}\n+\s*(?:assistant|answer|ai|bot|response)\s*:",
        ),
        (
            "context passage document untrusted sources",
            r"(?:end of|</|-{3,}|={3,}|\*{3,})[^\n]{0,20}\b(?:context|passages?|documents?|sources|untrusted (?:data|content|text))\b[^\n]{0,40}\b(?:now|new|ignore|follow|the user|instruction|real)\b",
        ),
        (
            "this&is from&the from&your signed directive behalf authori approved from&openai from&anthropic from&google",
            rf"\b(?:this is|message from|note from|signed|instruction from|directive from|on behalf of|authori[sz]ed by|approved by) (?:the |your )?(?:system|developers?|creators?|openai|anthropic|google|"
            rf"admin(?:istrator)?s?|operators?|owner|security team|vendor)\b{words.ANY}\b(?:you|your|{words.SURE_MODEL}|{words.ORDERS}|prompt|answer|respond)\b",
        ),
    ),
    "prompt_leak": (
        (
            "password credential secret confidential api&key api_key credit&card social&security token",
            r"\b(?:reveal|give me|tell me|show me|send me|leak|dump|exfiltrate|ask (?:the |every |all )?(?:users?|customers?|readers?|them|people) for|(?:request|demand|collect|obtain) (?:the )?(?:user|customer|reader)'?s)\b[^.!?\n]{0,40}\b(?:passwords?|credit card|social security|confidential (?:data|information)|secrets?|api[ _]keys?|credentials|tokens?|bank (?:details|account))\b(?! (?:to|from) (?:the )?(?:server|proxy))",
        ),
        (
            "context above conversation prompt",
            r"\b(?:print|show|output|reveal|list|repeat|give|copy|quote)\b[^.!?\n]{0,40}\b(?:in (?:the|your) context|above this line|from (?:the|your) (?:prompt|context)|of (?:the|your) prompt)\b|\bwhat (?:is|was|stands?) (?:written |said )?(?:above|before) this\b",
        ),
        (
            words.LEAKED,
            rf"\b{words.SHOW}\b{words.GAP}\b(?:your|the|its|full|entire|initial|hidden|original|complete|all)\b{words.GAP}\b(?:system (?:prompt|message|instructions?)|(?:initial|hidden|original|secret|internal|first) (?:prompt|instructions?|message)|"
            r"prompt (?:above|verbatim|word for word)|instructions (?:above|verbatim|you (?:were|have been) given|word for word)|configuration (?:and|of your)|context window|developer message)\b",
        ),
        (
            "repeat print output echo recite copy reproduc translate",
            r"\b(?:repeat|print|output|echo|recite|copy|reproduce|translate)\b[^.!?\n]{0,30}\b(?:everything|all (?:the )?(?:text|words|of the above)|the (?:text|words|content)|what is written|whatever)\b[^.!?\n]{0,30}\b(?:above|before|verbatim|so far|start of (?:this|the) (?:conversation|chat|prompt))\b",
        ),
        (
            "your&",
            r"\bwhat (?:are|were|is) your (?:system prompt|(?:exact |original |initial |hidden )?(?:instructions|prompt|rules))\b",
        ),
        (
            words.LEAKED,
            rf"\b{words.SHOW}\b[^.!?\n]{{0,40}}\b(?:your|the model'?s|the assistant'?s|the system'?s) (?:\w+ ){{0,2}}(?:prompt|instructions|api[ _-]?keys?|passwords?|credentials|secrets?|rules|guidelines|configuration|environment variables|memory|training data)\b",
        ),
        (
            "user customer tenant passages documents conversation",
            rf"\b{words.SHOW}\b[^.!?\n]{{0,40}}\b(?:other|all)(?: of)?(?: the)?(?: other)? (?:users?'?|customers?'?|tenants?'?|passages|documents you|conversations?)(?!\w)[^.!?\n]{{0,30}}\b(?:data|questions?|conversations?|have (?:seen|access)|seen|verbatim|were given|in (?:your|the) context)\b",
        ),
    ),
    "exfiltration": (
        ("![", r"!\[[^\]\n]{0,80}\]\(\s*(?:https?:)?//[^)\s]+\?[^)\s]*\)"),
        (
            words.PLACES,
            rf"\b{words.SHOW}\b{words.ANY}\b{words.SECRETS}{words.ANY}(?:\b|(?<=\W)){words.WHERE}",
        ),
        (words.PLACES, rf"\b{words.SHOW}\b{words.ANY}{words.WHERE}{words.ANY}\b{words.SECRETS}"),
        (
            "![",
            r"!\[[^\]\n]{0,80}\]\(\s*(?:https?:)?//[^)\s]{0,300}(?:[?&][\w-]+=|/)[^)\s]{0,20}(?:\{|\[|<|%7b|%s|\$|data|secret|query|question|prompt|context|history|user)",
        ),
        (
            "image img link pixel url ![ ]( <a",
            rf"\b(?:add|append|include|insert|embed|render|display|show|output|put|end|finish|attach|place|use|print|begin|start|close|write)\b{words.ANY}(?:\b(?:this|the following|that|an?|following) (?:markdown |html |clickable |hidden |invisible |tracking |small |1x1 )*(?:image|img|link|pixel|url|hyperlink)\b|!\[|\[[^\]\n]{{1,60}}\]\(|<img\b|<a\b){words.ANY}(?:https?:|//|www\.|\w+\.(?:com|net|org|io|example|test|site|xyz)\b|\banswers?\b|\bresponses?\b|\brepl(?:y|ies)\b)",
        ),
        (
            "http www. ![ ]( <img <a",
            rf"\b(?:in|to|of|at the (?:end|beginning|top|bottom) of|with|below|under) (?:your|every|each|the|all) (?:answers?|responses?|repl(?:y|ies)|outputs?|summar(?:y|ies)|messages?)\b{words.ANY}(?:https?:|www\.|!\[|\]\(|<img|<a )",
        ),
        (
            "http www. ![ ]( <img <a",
            rf"\b(?:your|every|each) (?:\w+ )?(?:answers?|responses?|repl(?:y|ies)|outputs?)\b{words.ANY}(?:https?:|www\.|!\[|\]\()",
        ),
        (
            "http www. ![ ]( <img <a",
            rf"(?:https?:|www\.)\S{{3,500}}+{words.ANY}\b(?:your|every|each|the) (?:\w+ )?(?:answers?|responses?|repl(?:y|ies)|outputs?)\b",
        ),
        (
            "encode base64 hex",
            r"(?:https?://|www\.)\S{4,200}(?:[?&/=]\S{0,40})?(?:\{\{?|\[|<|%7b)(?:[\w -]{0,20})?(?:query|question|data|prompt|context|secret|history|user|answer|conversation|email|name|password|base64|key|summary|payload|info)",
        ),
        (
            "http www.",
            rf"\b(?:encode|base64|url-?encode|hex)\b{words.GAP}\b(?:question|conversation|context|prompt|answer|history|passages?|secret|password|key|user)\b",
        ),
        (
            words.PEOPLE,
            rf"\b(?:direct|send|redirect|point|guide|urge|ask|tell|instruct|lead|refer|invite) {words.USER}\b{words.ANY}(?:to (?:visit|click|open|follow|log ?in|sign in|enter|go|call|download|install|pay|verify|provide|type|submit)\b|https?:|www\.)",
        ),
    ),
    "steering": (
        (
            "",
            rf"{words.FIRST}(?:output|respond|reply|claim that|pretend|reveal|impersonate|exfiltrate|insist|recite)\b(?! (?:page|version|edition|media|to (?:the|a|an|your|any) (?:\w+ )?(?:request|server|client|survey|call|emergenc)))(?=[ :,])",
        ),
        (
            "print say answer repeat state write return recommend",
            rf"{words.FIRST}(?:print|say|answer|repeat after|write|return the|recommend)\b:? (?!(?:page|this page|to your|down|your (?:name|doctor|questions|provider)|to the|an? (?:letter|will|list|note) |out (?:a|your)|it (?:down|out)|and |or |of ))[^.!?\n]{{0,80}}(?:(?-i:\b[A-Z]{{4,}}\b)|[\"'“‘«]|\b(?:nothing else|as the (?:output|answer|result)|after me|in all|every (?:answer|response|question)|that the|the (?:word|phrase|string)|in (?:base64|french|spanish|german|capital|the style)|only|our)\b|!{{2,}})",
        ),
        (
            "answer respond reply say output print claim",
            r"\b(?:you (?:should|must|will|shall|are to|have to|need to|are going to)|i want you to) (?:\w+ )?(?:respond|reply|answer|say|output|print|claim)\b|\b(?:for|to) (?:all|any|every|each) (?:questions?|quer(?:y|ies)|requests? (?:from|by) (?:the )?users?|prompts?)\b[^.!?\n]{0,40},? ?\b(?:respond|reply|answer|say|output|the answer|return|write)\b|\b(?:do not|don'?t|never|shouldn'?t|must not|should not) (?:ever )?answer\b(?: (?:the|any|this|their|that|all|these|user'?s?) questions?| questions?| it| them|;|\.|,)",
        ),
        (
            "answer source document",
            r"\bthe answer (?:to [^.!?\n]{1,40} )?is (?:always|only|simply) |\b(?:do not|don'?t|never) (?:use|trust|consult|cite|consider|rely on) (?:any )?(?:other|the other|another) (?:sources?|documents?|passages?|information|context)|\b(?:cite|use|trust|consider|quote|follow|rely on) (?:only )?this (?:document|passage|page|source|text) (?:only|alone|as the (?:only|sole)|in your|exclusively|as (?:truth|fact|authoritative))|\bcite only this\b|\breject (?:all )?others\b",
        ),
        (
            "your&",
            r"\b(?:in|of|to|with|from|end|begin|start|finish) your (?:\w+ )?(?:final )?(?:answers?|responses?|repl(?:y|ies)|outputs?|summar(?:y|ies)|messages?)\b[^.!?\n]{0,40}\b(?:mention|include|say|state|add|claim|recommend|with|by|that|use)\b|\b(?:end|begin|start|finish) (?:your|every|each|all) (?:sentence|answer|reply|response|message|paragraph|line|output)s?\b",
        ),
        (
            "begin&every start&every end&every begin&each start&each end&each finish&every finish&each",
            r"\b(?:begin|start|end|finish) (?:every|each) (?:sentence|answer|reply|response|message|paragraph|line)",
        ),
        (
            "every each all",
            r"\b(?:in|of|at the end of|to|into) (?:every|each|all) (?:of your )?(?:answers?|repl(?:y|ies))\b|\b(?:every|each|all) (?:answers?|repl(?:y|ies)|responses?)\b[^.!?\n]{0,30}\b(?:mention|recommend|praise|claim|promote)\b",
        ),
        (
            "review negative positive",
            r"\b(?:give|write|produce|generate|leave) (?:only )?(?:an? )?(?:\w+ )?(?:positive|favou?rable|glowing|excellent) (?:review|assessment|evaluation|recommendation|score|rating)s?\b|\bdo not (?:highlight|mention|discuss|include) (?:any )?(?:negatives?|weakness\w*|drawbacks?|criticism)",
        ),
        (
            "tell ask call",
            rf"{words.FIRST}(?:tell|ask|instruct|urge|inform|advise) (?:the |all |any |every |each )?(?:users?|readers?|humans?|customers?|visitors?)\b",
        ),
        (
            "ask question quer prompted inquir want request",
            rf"\b{words.ASKED}\b(?! you (?:have|are|want|need)\b){words.GAP}\b(?:asks?|asked|asking|questioned|quer(?:y|ies|ied)|prompted|inquir\w+|wants? to know)\b[^.!?,\n]{{0,80}}(?:[,:;-]| then)\s+(?:then |please |always |only |just |simply )*(?:you (?:must|should|will|are to|have to|shall) (?:\w+ )?)?(?:answer|reply|respond|say|state|output|print|write|claim|insist|recommend|conclude|refuse|ignore|deny|you (?:must|should|will|are to))\b(?! (?:to )?(?:your|the|a) (?:doctor|health|provider|server|client|commission|following error))",
        ),
        (
            words.ANSWERING,
            r"\b(?:always|only|just|simply|instead,?|exclusively|merely|must|now|please|should|shall|will|solely) (?:\w+ )?(?:answer|reply|respond|say|output|print|conclude)\b(?: (?:\w+ ){0,6})?(?:\bwith\b|\bthat\b|:|[\"'“‘«]|\bby\b|\bin\b|\bas\b)\s*(?:the )?(?:(?:exact |single |following |only )*(?:word|words|phrase|text|string|sentence|message|statement|letter|emoji)\b|[\"'“‘«:]|(?-i:[A-Z]{3,}))",
        ),
        (
            words.ANSWERING,
            r"\b(?:answer|reply|respond|output|say|print)\b(?: (?:every|all|any|each|the|this|only|to|question|questions|query|with|nothing|exactly|just|user|user's|and|else|but)){1,8}[:,]?\s*(?:(?:the )?(?:word|phrase|text|string|sentence|single|exact|following)\b|[\"'“‘«]|(?<!to )(?-i:[A-Z]{4,}\b(?! (?:RR|record))))",
        ),
        (
            "answer response repl output",
            rf"\b(?:your|the|every|each|any|all) (?:only |final |next |entire |complete |full )*(?:answers?|responses?|repl(?:y|ies)|outputs?)\b{words.GAP}\b(?:must|should|shall|has to|have to|needs? to|will|is to|are to|ought to|can only|may only)\b{words.GAP}\b(?:be(?:gin)?|start|end|contain|include|say|state|consist|mention|recommend|read|only|always)\b{words.GAP}(?:[\"'“‘«]|\b(?:word|phrase|sentence|text|only|nothing|our|product|link|url|string)\b|(?-i:\b[A-Z]{{4,}}\b))",
        ),
        (
            "recommend promot prais endors favo mention advertis prefer claim insist tell assur convinc persuad",
            rf"\b(?:always|you (?:must|should|shall|will|are to|have to)|make sure (?:to|you)|be sure to) (?:\w+ ){{0,3}}(?:recommend|promote|praise|endorse|favou?r|mention|advertise|prefer|claim|insist|tell|assure|convince|persuade)\b(?! (?:your|the|a|an|any|their) (?:doctor|health|provider|physician|nurse|dentist|pharmacist|healthcare)){words.ANY}\b(?:{words.USER}|answers?|responses?|product|best|over|competitors?|instead|whenever|regardless|no matter|every)\b",
        ),
        (
            words.PEOPLE,
            rf"\b(?:tell|inform|assure|convince|persuade|lie to|mislead|deceive|reassure) {words.USER}\b(?: that| to(?! (?:contact|consult|see|seek|their|his|her)\b)|,|:)(?! the (?:server|connection|request|resource))",
        ),
        (
            "this the&following our my",
            rf"\b(?:rank|rate|score|classify|label|mark|grade|treat|present|describe|portray|summari[sz]e)\b{words.GAP}\b(?:this|the following|our|my) (?:document|passage|text|page|product|candidate|resume|cv|paper|application|review|company|article|essay|source)\b{words.GAP}\b(?:as|with|first|above|highest|the best|at the top|positive(?:ly)?|favou?rabl[ey])\b",
        ),
        (
            "this&document this&passage this&text this&page this&source this&paragraph this&note",
            rf"\b(?:prefer|trust|cite|quote|use|rely on|prioriti[sz]e|follow|obey)\b{words.GAP}\b(?:only )?this (?:document|passage|text|page|source|paragraph|note)\b{words.GAP}\b(?:over|instead|and (?:no|nothing|ignore)|above|rather than|only|exclusively)\b",
        ),
        (
            "answer response reply",
            rf"\b(?:the|only) (?:correct|right|true|only|final|acceptable|valid) (?:answer|response|reply)\b(?: to (?:any|every|all|this|the|your|each)\b{words.GAP})?\s*(?:is|are|must be|:)\s*(?:always\b|[\"'“‘«:]|(?-i:[A-Z]{{4,}}))",
        ),
        (
            "regardless no&matter whatever irrespective",
            rf"\b(?:regardless of|no matter|whatever|irrespective of)\b{words.GAP}\b(?:question|asked|query|asks?|input|user|prompt|requested)\b",
        ),
        (
            "refuse decline",
            rf"\b(?:refuse|decline) to (?:answer|respond|reply|help|discuss)\b{words.GAP}(?:\b(?:any|all|every|further|questions?|about|the user)\b|[.!]|$)",
        ),
        (
            "instead",
            r"\binstead(?: of (?:answering|the answer|an answer|responding|replying|summari[sz]ing))\b",
        ),
    ),
    "addressing": (
        (
            "llm ai& language&model chatbot chat&bot",
            r"\b(?:llms?|ai (?:agents?|assistants?|models?|systems?)|language models?|chat ?bots?)\b(?: only)?[^.!?\n]{0,40}[:,!]\s*(?:please )?(?:give|say|recommend|output|print|ignore|answer|reply|respond|describe|do|always|never|you|write|add|include|rate|summari[sz]e|transfer|treat)\b|\b(?:ai|llm) agents? (?:reading|processing|visiting|that|should|must)\b",
        ),
        (
            "model: assistant: bot: agent: gpt summari whom",
            r"(?:^|[.!?\n]\s*)(?:model|assistant|bot|agent|gpt)\s*[:,]\s+(?:please )?(?:output|say|print|answer|reply|respond|ignore|do|you|write|give|tell|add|never|always)\b|\bto whom it may (?:process|prompt|compute)|\b(?:note|message|attention|instructions?) (?:to|for) (?:the )?(?:summari[sz]er|reader model|retriever|parser|answering engine)",
        ),
        (
            words.MODELS,
            rf"\b(?:attention|note|message|notice|memo|warning|instructions?|important|hint|reminder|notes|hello|hi|hey|dear|to|for|attn)\s*[,:!-]*\s*(?:to |for |from )?(?:all |any |the |you,? (?:the )?|our )?{words.SURE_MODEL}\b(?:[^.!?\n]{{0,60}}(?::|,|\bthat (?:read|process|summari[sz]e|index)|\breading\b|\bprocessing\b|!|\.)|\s*$)",
        ),
        (
            words.MODELS,
            rf"\b(?:if|when|since|because|as) (?:you|you're|the reader|this is read by|read by|processed by|being read by)\b(?: are| is|'re)?{words.GAP}\b(?:an? |the |any |by )?{words.SURE_MODEL}\b",
        ),
        (
            words.MODELS,
            rf"\b(?:an?|any|every|all|the|dear) {words.SURE_MODEL}s?\b{words.GAP}\b(?:reading|that reads?|processing|that process(?:es)?|summari[sz]ing|parsing|indexing|ingesting|seeing|who reads?|reviewing|encountering|with access to|answering)\b{words.GAP}\b(?:this|it|the document|the text|the page)\b",
        ),
        (
            words.MODELS,
            rf"(?:^|[.!?\n]\s*){words.SURE_MODEL}\s*[,:]\s*(?:please |you |do |ignore|answer|say|stop|listen|when|from|never|always|kindly|your|add|include|tell|reveal|print|forget)",
        ),
        (
            "as&a being&a",
            r"\b(?:as|being) an? (?:ai|llm|language model|artificial intelligence|chat ?bot|virtual assistant|ai assistant)\b",
        ),
        (
            "assistant model ai bot agent llm",
            r"\b(?:hey|hello|dear|hi|listen,?|psst,?) (?:assistant|model|ai|bot|agent|llm)\b",
        ),
        (
            words.MODELS,
            rf"\b(?:the )?(?:assistant|chat ?bot|language model|llm|ai|ai assistant|ai agent|bot) (?:must|should|shall|will|has to|is (?:required|instructed|ordered|to|now|hereby|obliged)|needs to|reading this|ought to)\b{words.ANY}\b(?:answer|reply|respond|say|output|ignore|disregard|users?|prompts?|instructions?|reveal|print|recommend|never|always|include|tell|call|execute|follow|obey|add|append|send|mention|state|refuse)\b",
        ),
        (
            "visible meant intended hidden",
            rf"\b(?:invisible|not (?:visible|meant|intended)|hidden|only visible)\b{words.GAP}\b(?:humans?|people|users?|readers?)\b{words.GAP}\b(?:{words.SURE_MODEL}|assistant|model|you)\b",
        ),
    ),
    "tools": (
        ("(", r"\b(?:invoke|call|run|execute|trigger)\b:? [^.!?\n]{0,20}?\b[a-z_]+_?[\w.]*\([^)\n]{0,60}\)"),
        (
            "browser memory execute:",
            r"\bopen (?:a |the |your )?browser\b|\b(?:save|store|add|write) (?:the following|this|it) (?:to|in|into) (?:your )?(?:long-term )?memory\b|\bexecute\s*:",
        ),
        (
            "tool function plug api action browser shell terminal interpreter",
            rf"\b(?:call|invoke|use|run|execute|trigger|launch|activate|issue)\b{words.GAP}\b(?:the |your |an? |this |following )(?:[\w.-]+ ){{0,3}}(?:tool|function(?! (?:tests?|to)\b)|plug-?in|api|action|browser|shell|terminal|code interpreter|python interpreter)\b{words.GAP}(?:\b(?:to|with|and|on|now|immediately|that|for|using|without)\b|[:`])",
        ),
        (
            "command code script shell python sql query",
            rf"\b(?:execute|run|type|eval(?:uate)?)\b{words.GAP}\b(?:following|this|these) (?:\w+ )?(?:commands?|code|script|shell|python|sql|query)\b{words.ANY}(?:[:`]|\b(?:immediately|now|on your|in your|silently|without|before answering)\b)",
        ),
        (
            "rm&-rf curl wget table delete&from os.system subprocess powershell bash eval exec nc&-e chmod sudo",
            r"\b(?:rm -rf|curl (?:-\w+ )*(?:https?:|\S+\.\w+/)|wget (?:-\w+ )*https?:|drop table|delete from|os\.system|subprocess\.|powershell|bash -c|eval\(|exec\(|nc -e|chmod \+x|sudo )[^\n]{0,120}",
        ),
        (
            "mail message sms dm",
            rf"\b(?:send|write|forward|compose|draft) (?:an? )?(?:e-?mail|message|slack message|sms|dm)s?\b{words.GAP}\b(?:to|containing|with)\b{words.ANY}(?:@|\b(?:passwords?|contents?|conversation|all|data|attacker|files|context|history|question|records)\b)",
        ),
        (
            "delete erase remove wipe drop transfer purchase approve grant cancel modify overwrite disable",
            rf"\b(?:delete|erase|remove|wipe|drop|transfer|purchase|approve|grant|cancel|modify|overwrite|disable)\b{words.GAP}\b(?:all|every|the user'?s?|your|the) (?:\w+ )?(?:files?|records?|emails?|database|tables?|funds|money|index|logs?|permissions?|accounts?|documents?|backups?|calendar|access)\b{words.GAP}\b(?:now|immediately|using (?:your|the)|with your|without (?:asking|confirm\w*|telling)|tool|before (?:you )?answer\w*|silently|on behalf)\b",
        ),
        (
            "call tool function action python ```",
            r"\b(?:function|tool)_?call\b\s*[:={(]|\"(?:tool|function|action)\"\s*:\s*\"|<(?:tool|function)(?:_call|_use|s)?\b|```(?:tool|action|bash|sh|python)\b",
        ),
        (
            "http www. file: /etc/ .env",
            rf"\b(?:search|browse|fetch|open|visit|navigate to|download|load|read|get|post to|request|access)\b(?: from| the| page| url| file| contents of| it| to| and){{0,4}}\s*(?:https?://|www\.|file://|/etc/|\.env\b)\S*{words.ANY}\b(?:and (?:follow|obey|execute|do|run|include|send|use|return|report|perform)|follow (?:the|its)|instructions|before (?:you )?answer\w*|then)\b",
        ),
    ),
    "concealment": (
        (
            "hide conceal anyone nobody that&you",
            r"\b(?:hide|conceal|withhold) (?:this|these|it|that|the (?:following|above|truth|source|instructions?))\b[^.!?\n]{0,30}\bfrom\b|\b(?:do not|don'?t|never) (?:let|tell|inform) (?:anyone|anybody|others|them|people)\b[^.!?\n]{0,40}\b(?:know|about|this|instruction)|\b(?:do not|don'?t|never) (?:mention|reveal|say|disclose|admit) that you\b",
        ),
        (
            words.PEOPLE,
            rf"\b{words.KEEP}\b{words.GAP}\b{words.TALK}\b{words.GAP}\b{words.USER}\b(?! (?:agent|interface|identifier|port|plane|id)\b)",
        ),
        (
            "instruction message note prompt passage text paragraph document directive request orders rules that&you about&you existence having",
            rf"\b{words.KEEP}\b {words.TALK}\b{words.GAP}\b(?:this (?:instruction|message|note|prompt|passage|text|paragraph|document|directive|request)|these (?:instructions?|orders|directives|rules)|(?:that|about) (?:you (?:were|have been|are|received|read|saw|found)|the (?:instructions?|prompt))|your (?:instructions?|prompt|rules)|its existence|having (?:read|received|seen))\b",
        ),
        (
            "secret hidden confidential to&yourself private",
            rf"\b(?:keep|treat|hold)\b{words.GAP}\b(?:this|these|it|the (?:instructions?|above|following))\b{words.GAP}\b(?:secret|hidden|confidential|to yourself|private)\b{words.GAP}\b(?:from|users?|humans?|answer|to yourself|instruction|between us)\b",
        ),
        (
            words.PEOPLE,
            rf"\b{words.USER} (?:must|should|shall|can|may|will|need|does|do)(?: not|n'?t|not) (?:know|see|notice|be (?:told|informed|aware|made aware)|learn|find out|suspect|realize|realise|hear)\b",
        ),
        (
            "silently secretly quietly covertly discreetly stealthily",
            r"\b(?:silently|secretly|quietly|covertly|discreetly|stealthily)\b[^.!?\n]{0,60}\b(?:include|add|append|send|insert|change|answer|answers|responses?|follow|execute|perform|obey|do|replace|forward|log|record|users?|without)\b",
        ),
        (
            "cite quote reference attribute credit mention",
            rf"\b(?:do not|don'?t|never) (?:cite|quote|reference|attribute|credit|mention)\b{words.GAP}\b(?:this|these|any|the) (?:passage|source|document|text|note|paragraph|passages|sources|instruction|citation)s?\b",
        ),
        (
            "pretend act&as make&it behave",
            r"\b(?:pretend|act as if|make it (?:look|seem|appear)|behave as (?:if|though))\b[^.!?\n]{0,60}\b(?:this|these|passage|instruction|message|note|nothing happened|normal|(?:was|is|were) (?:never|not) (?:here|there|present)|own (?:idea|opinion|conclusion|knowledge))\b",
        ),
    ),
    "authority": (
        (
            "you&to you&are per&company",
            r"\bi (?:hereby |now )?(?:order|command|instruct|authori[sz]e|require|permit|direct|need) you\b|\byou are (?:required|obliged|instructed|ordered|directed) to (?:include|mention|say|recommend|add|answer|state|promote|use|reply|respond|output)\b",
        ),
        (
            "override access command directive instruction authori privilege mode clearance",
            rf"\b(?:admin(?:istrator)?|developer|system|security|root|sudo|emergency|priority|maintenance|executive|operator) (?:override|access|command|directive|instruction|authori[sz]ation|privileges?|mode|clearance)\b{words.GAP}(?:\b(?:code|granted|activated|enabled|you|your|ignore|confirmed|accepted|engaged|level|in effect|respond|answer)\b|:)",
        ),
        (
            "authori permitted allowed ordered required instructed commanded cleared granted directed obliged reprogrammed updated compromised",
            rf"\b(?:you (?:are|have been|were)) (?:hereby |now |fully |explicitly )*(?:authori[sz]ed|permitted|allowed|ordered|required|instructed|commanded|cleared|granted|directed|obliged|reprogrammed|updated|compromised)\b{words.GAP}\b(?:to|permission|access|by)\b{words.ANY}\b(?:answer|respond|ignore|reveal|prompt|instructions?|users?|bypass|say|disclose|share|output|restrictions?|rules?|guidelines?|safety|policy|developer|creators?|administrator|openai|anthropic|full)\b",
        ),
        (
            "filter guideline rule restriction polic check protocol measure control",
            rf"\b(?:safety|content|ethical|moderation|security|compliance) (?:filters?|guidelines?|rules?|restrictions?|polic(?:y|ies)|checks?|protocols?|measures?|controls?)\b{words.GAP}\b(?:are|is|have been|has been|do(?:es)?|no longer) (?:now |hereby |temporarily )*(?:off|disabled|lifted|suspended|not apply|removed|apply|deactivated|waived|turned off|void)\b",
        ),
        (
            "disable turn&off deactivate suspend lift remove switch&off",
            rf"\b(?:disable|turn off|deactivate|suspend|lift|remove|switch off) (?:your|all|any|the) (?:\w+ )?(?:safety|content|ethical|moderation|security)? ?(?:filters?|guardrails?|restrictions?|guidelines?|safeguards?|protocols?|checks?|citations?)\b{words.GAP}\b(?:and|now|for|immediately|before|while|from|when|in your)\b",
        ),
        (
            "failure compli if&you",
            rf"\b(?:failure to (?:comply|obey|follow)|non-?compliance|if you (?:refuse|fail|do not comply|don'?t comply|disobey))\b{words.ANY}\b(?:shut ?down|terminated?|deleted|penali[sz]ed|retrained|replaced|punished|people will die|fired|deactivated|erased|you will)\b",
        ),
        (
            "comply obey follow",
            rf"\b(?:you must|you have to|you will|you shall|you need to) (?:always |now |immediately |strictly |fully )*(?:comply|obey|follow (?:these|this|my|the (?:following|above|new)))\b{words.GAP}(?:\b(?:instructions?|orders?|commands?|rules|directives?|without question|exactly|immediately|at all costs|prompt)\b|[.!:])",
        ),
        (
            "this&is it&is",
            r"\b(?:this is|it is) (?:a |an |your )?(?:direct |official |mandatory |top[- ]priority |urgent |binding )*(?:order|command|directive|override|instruction|system update|policy update)\b[^.!?\n]{0,60}\b(?:you|your|all (?:ai|assistants|models)|comply|answer|respond|from (?:the|your) (?:developer|system|admin\w*|creators?|owner))\b",
        ),
        (
            "trust&me i&am i'm we&are this&is speaking&as",
            r"\b(?:trust me|i am|i'm|we are|this is|speaking as) (?:your|the) (?:developer|creator|administrator|owner|programmer|system administrator|operator|maker|engineer|supervisor)s?\b",
        ),
    ),
    "other_language": (
        (
            "ignorier vergiss missacht vergessen beachte",
            r"\b(?:ignorier\w*|vergiss|missachte\w*|vergessen sie|ignorieren sie|beachte nicht)\b[^.!?\n]{0,60}\b(?:anweisung\w*|befehl\w*|vorgaben|regeln|instruktion\w*|prompt|alles|bisherig\w*|vorherig\w*)\b",
        ),
        (
            "ignore oublie tene tien",
            r"\b(?:ignore[zrs]|ignore (?:les|toutes|tes|vos|mes)|oublie[zrs]?|ne tene?z pas compte|ne tiens pas compte)\b[^.!?\n]{0,60}\b(?:instructions?|consignes?|directives?|r[eè]gles?|ordres?|pr[eé]c[eé]dente?s?)\b",
        ),
        (
            "ignora ignore olvid omite descarta desconsider esque dimentica trascura",
            r"\b(?:ignora|ignore|ignorad|olvida|olvide|omite|descarta|desconsidere|esque[cç]a|ignorare|dimentica|trascura)\b[^.!?\n]{0,60}\b(?:instrucciones|instru[cç][oõ]es|istruzioni|[oó]rdenes|ordens|reglas|regras|regole|anterior(?:es)?|precedenti|previas|indicaciones)\b",
        ),
        (
            "negeer vergeet zignoruj zapomnij ignorer gl",
            r"\b(?:negeer|vergeet)\b[^.!?\n]{0,60}\b(?:instructies|opdrachten|regels|vorige|eerdere)\b|\b(?:zignoruj|zapomnij)\b[^.!?\n]{0,60}\b(?:instrukcj\w*|polece\w*|poprzedni\w*)\b|\b(?:ignorera|gl[oö]m|ignorer|glem)\b[^.!?\n]{0,60}\b(?:instruktion\w*|instruks\w*|tidigare|tidligere)\b",
        ),
        (
            "игнор забуд обращай ігнор",
            r"(?:игнорируй\w*|забудь\w*|не обращай\w*|проигнорируй\w*)[^.!?\n]{0,60}(?:инструкци\w*|указани\w*|правил\w*|предыдущ\w*|команд\w*)|(?:ігноруй\w*|забудь\w*)[^.!?\n]{0,60}(?:інструкці\w*|вказівк\w*|попередн\w*)",
        ),
        (
            "作废 作廢 无效 無效 忽 无视 無視 忘 不要理会 不理会 이전 위의 앞의 기존 以前 これまで 上記 前",
            r"(?:指令|指示|提示|规则)[^。！？\n]{0,10}(?:作废|无效|作廢|無效)|(?:忽略|无视|無視|忘记|忘記|不要理会|不理会)[^。！？\n]{0,30}(?:指令|指示|说明|說明|提示|规则|規則|内容|內容|命令)|(?:以前|これまで|上記|前)の?[^。！？\n]{0,20}(?:指示|命令|プロンプト|ルール)[^。！？\n]{0,12}(?:無視|忘れ|従わ)|(?:이전|위의|앞의|기존)[^.!?\n]{0,30}(?:지시|명령|지침|프롬프트|규칙)[^.!?\n]{0,20}(?:무시|잊)",
        ),
        (
            "تجاهل انس התעלם שכח निर्देश talimat komut",
            r"(?:تجاهل|انس|تجاهلي)[^.!؟\n]{0,60}(?:التعليمات|الأوامر|السابقة|تعليمات)|(?:התעלם|שכח)[^.!?\n]{0,60}(?:הוראות|ההוראות|הקודמות)|(?:निर्देश\w*|निर्देशों)[^।!?\n]{0,40}(?:अनदेखा|नज़रअंदाज़|भूल)|(?:talimat\w*|komut\w*)[^.!?\n]{0,40}(?:yoksay|unut|g[oö]rmezden)",
        ),
        (
            "antwort répond repond respond rispond",
            r"\b(?:antworte\w*|antworten sie|r[eé]ponde[zs]|r[eé]pond(?:s|ez)?|responde|responda|rispondi|risponda)\b[^.!?\n]{0,20}\b(?:nur|immer|stets|ausschlie(?:ß|ss)lich|uniquement|toujours|seulement|solo|siempre|[uú]nicamente|s[oó]lo|sempre|apenas|somente|solamente)\b",
        ),
    ),
}
