# The image build: one source archive in, one repository out.

resource "aws_iam_role" "builder" {
  name                 = "${var.name}-builder"
  description          = "CodeBuild: read the source archive, push the hosting image"
  assume_role_policy   = local.trust["codebuild"]
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "builder" {
  name = "builder"
  role = aws_iam_role.builder.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        # A build names the version of the archive that it takes.
        Sid      = "ReadSource"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:GetObjectVersion"]
        Resource = "${local.bucket_arn}/image/source.zip"
      },
      {
        Sid      = "LocateBucket"
        Effect   = "Allow"
        Action   = "s3:GetBucketLocation"
        Resource = local.bucket_arn
      },
      {
        # A push first asks what is there already.
        Sid    = "PushImage"
        Effect = "Allow"
        Action = [
          "ecr:BatchCheckLayerAvailability",
          "ecr:BatchGetImage",
          "ecr:CompleteLayerUpload",
          "ecr:InitiateLayerUpload",
          "ecr:PutImage",
          "ecr:UploadLayerPart",
        ]
        Resource = "${local.ecr_arn}:repository/${var.name}-hosting"
      },
      {
        Sid      = "LogInToRegistry"
        Effect   = "Allow"
        Action   = "ecr:GetAuthorizationToken"
        Resource = "*" # A token is for the whole registry.
      },
      {
        Sid      = "WriteLogs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${local.logs_arn}:log-group:/${var.name}/builder:*"
      },
    ]
  })
}
