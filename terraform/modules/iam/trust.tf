# Who may take each role. A service acts for every account it serves: aws:SourceAccount admits it only on behalf of this
# one. EC2 does not send that key; an instance profile is bound to its account by iam:PassRole.

locals {
  trust = {
    for service, condition in {
      "codebuild"     = local.this_account
      "ec2"           = {}
      "lambda"        = local.this_account
      "sagemaker"     = local.this_account
      "vpc-flow-logs" = local.this_account
      } : service => jsonencode({
        Version = "2012-10-17"
        Statement = [merge(
          {
            Effect    = "Allow"
            Principal = { Service = "${service}.amazonaws.com" }
            Action    = "sts:AssumeRole"
          },
          condition
        )]
    })
  }

  this_account = { Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } } }
}
